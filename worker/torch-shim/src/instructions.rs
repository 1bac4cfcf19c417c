//! Which instructions MKL computes with.

use libloading::os::unix::Library;
use std::ffi::{c_int, c_void};
// Whoever links the C++ part needs libtorch.
use torch_sys as _;

unsafe extern "C" {
    fn halfheard_answers_mkl() -> *const c_void;
}

/// Whether MKL chooses its instructions by what the processor has, whoever made it.
///
/// A program that links this crate answers MKL's question for the maker, unless another library answers first; MKL
/// asks once, so nothing needs to be called for it. `None` where libtorch has no MKL, so that nothing refers to the answer.
pub fn mkl_goes_by_instructions() -> Option<bool> {
    // SAFETY: returns the address of a function.
    let own = unsafe { halfheard_answers_mkl() };
    // SAFETY: the function has this type in MKL; only its address is used.
    unsafe {
        let this = Library::this();
        let asked = this.get::<unsafe extern "C" fn() -> c_int>(b"mkl_serv_intel_cpu_true\0");
        Some(std::ptr::eq(*asked.ok()? as *const c_void, own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn this_program_answers_for_the_processors_maker() {
        assert_ne!(mkl_goes_by_instructions(), Some(false));
    }
}
