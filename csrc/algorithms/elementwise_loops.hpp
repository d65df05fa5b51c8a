// Activations and optimizer updates over flat arrays; see elementwise_loops_kernels.hpp. All are bound by
// memory. The first three ask for it early (4 MB of x not in L2: 0.42 to 0.37 ms); the updates are
// plain loops, which the compiler turns into vectors with their square roots and divisions.
#pragma once

#include "algorithms/activation_math.hpp"
#include "algorithms/elementwise_loops_kernels.hpp"
#include "simd/ahead.hpp"
#include "simd/vec.hpp"

FASTCONV_BEGIN_ISA
namespace {

template <class T>
struct Activate {
    int64_t n;
    const T* x;
    T* out;

    template <Activation A>
    FASTCONV_INLINE void run() const {
        using V = vec<T, kLanes<T>>;
        for (int64_t i = 0; i < n; i += lanes_of<V>) {
            const auto m = mask<V>(n - i);
            read_ahead(x + i);
            write_ahead(out + i);
            store(out + i, activated(A, load<V>(x + i, m)), m);
        }
    }
};

template <class T>
void activate(int64_t n, const T* x, Activation activation, T* out) {
    for_activation(activation, Activate<T>{n, x, out});
}

template <class T>
struct Add {
    int64_t n;
    const T *a, *b;
    T* out;

    template <Activation A>
    FASTCONV_INLINE void run() const {
        using V = vec<T, kLanes<T>>;
        for (int64_t i = 0; i < n; i += lanes_of<V>) {
            const auto m = mask<V>(n - i);
            read_ahead(a + i);
            read_ahead(b + i);
            write_ahead(out + i);
            store(out + i, activated(A, load<V>(a + i, m) + load<V>(b + i, m)), m);
        }
    }
};

template <class T>
void add(int64_t n, const T* a, const T* b, Activation activation, T* out) {
    for_activation(activation, Add<T>{n, a, b, out});
}

template <class T>
struct ActivationGradient {
    int64_t n;
    const T *dy, *x;
    T* dx;

    template <Activation A>
    FASTCONV_INLINE void run() const {
        using V = vec<T, kLanes<T>>;
        for (int64_t i = 0; i < n; i += lanes_of<V>) {
            const auto m = mask<V>(n - i);
            read_ahead(dy + i);
            read_ahead(x + i);
            write_ahead(dx + i);
            store(dx + i, activated_gradient(A, load<V>(dy + i, m), load<V>(x + i, m)), m);
        }
    }
};

template <class T>
void activation_gradient(int64_t n, const T* dy, const T* x, Activation activation, T* dx) {
    for_activation(activation, ActivationGradient<T>{n, dy, x, dx});
}

FASTCONV_INLINE float root(float x) { return __builtin_sqrtf(x); }
FASTCONV_INLINE double root(double x) { return __builtin_sqrt(x); }

template <class T>
void sgd(int64_t n, const SgdStep& step, T* FASTCONV_RESTRICT param, const T* FASTCONV_RESTRICT grad,
         T* FASTCONV_RESTRICT velocity) {
    const T lr = static_cast<T>(step.lr), momentum = static_cast<T>(step.momentum),
            decay = static_cast<T>(step.decay);
    if (velocity == nullptr) {
        for (int64_t i = 0; i < n; i++) param[i] = param[i] - decay * param[i] - lr * grad[i];
    } else if (step.nesterov) {
        for (int64_t i = 0; i < n; i++) {
            const T move = lr * grad[i], v = momentum * velocity[i] - move;
            velocity[i] = v;
            param[i] = param[i] - decay * param[i] - move + momentum * v;
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            const T v = momentum * velocity[i] - lr * grad[i];
            velocity[i] = v;
            param[i] = param[i] - decay * param[i] + v;
        }
    }
}

template <class T, bool Centred, bool Momentum>
void rmsprop_loop(int64_t n, const RmspropStep& step, T* FASTCONV_RESTRICT param,
                  const T* FASTCONV_RESTRICT grad, T* FASTCONV_RESTRICT square, T* FASTCONV_RESTRICT mean,
                  T* FASTCONV_RESTRICT velocity) {
    const T lr = static_cast<T>(step.lr), rate = static_cast<T>(1 - step.rho), eps = static_cast<T>(step.eps);
    const T momentum = static_cast<T>(step.momentum), decay = static_cast<T>(step.decay);
    for (int64_t i = 0; i < n; i++) {
        const T g = grad[i], s = square[i] + rate * (g * g - square[i]);
        square[i] = s;
        T below = s + eps;
        if constexpr (Centred) {
            const T m = mean[i] + rate * (g - mean[i]);
            mean[i] = m;
            below = s - m * m + eps;
        }
        T move = lr * g / root(below);
        if constexpr (Momentum) velocity[i] = move = momentum * velocity[i] + move;
        param[i] = param[i] - decay * param[i] - move;
    }
}

template <class T>
void rmsprop(int64_t n, const RmspropStep& step, T* param, const T* grad, T* square, T* mean, T* velocity) {
    const auto loop =
        mean != nullptr
            ? (velocity != nullptr ? rmsprop_loop<T, true, true> : rmsprop_loop<T, true, false>)
            : (velocity != nullptr ? rmsprop_loop<T, false, true> : rmsprop_loop<T, false, false>);
    loop(n, step, param, grad, square, mean, velocity);
}

template <class T>
void adam(int64_t n, const AdamStep& step, T* FASTCONV_RESTRICT param, const T* FASTCONV_RESTRICT grad,
          T* FASTCONV_RESTRICT m, T* FASTCONV_RESTRICT v) {
    const T alpha = static_cast<T>(step.alpha), eps = static_cast<T>(step.eps),
            decay = static_cast<T>(step.decay);
    const T rate1 = static_cast<T>(1 - step.beta1), rate2 = static_cast<T>(1 - step.beta2),
            l2 = static_cast<T>(step.l2);
    for (int64_t i = 0; i < n; i++) {
        const T p = param[i] - decay * param[i], g = grad[i] + l2 * p;
        const T first = m[i] + rate1 * (g - m[i]), second = v[i] + rate2 * (g * g - v[i]);
        m[i] = first;
        v[i] = second;
        param[i] = p - alpha * (first / (root(second) + eps));
    }
}

template <class T>
constexpr ElementLoops<T> make_element_loops() {
    return {activate<T>, add<T>, activation_gradient<T>, sgd<T>, rmsprop<T>, adam<T>};
}

}  // namespace

const ElementKernels element_kernels = {make_element_loops<float>(), make_element_loops<double>()};

FASTCONV_END_ISA
