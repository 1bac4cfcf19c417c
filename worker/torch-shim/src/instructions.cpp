// Lets MKL choose its instructions by what the processor has, not by who made it.
//
// MKL asks a function of its own whether the processor is Intel's, and otherwise computes products of
// matrices with instructions of half the width: AMD's processors with AVX-512 then reach less than half of
// their speed. libtorch, in which MKL is linked statically, looks the function up by name, so a program that
// defines it answers in its place. MKL still asks the processor which instructions it has.

extern "C" {

__attribute__((visibility("default"))) int mkl_serv_intel_cpu_true(void) {
#if defined(__x86_64__)
  // On anything older, MKL's own choice is as good.
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return 0;
#endif
}

// Referred to by whoever wants this file in a program.
const void *halfheard_answers_mkl(void) {
  return reinterpret_cast<const void *>(&mkl_serv_intel_cpu_true);
}
}
