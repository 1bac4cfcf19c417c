//! Work for several threads.
//!
//! libtorch computes in the threads of its OpenMP runtime, which wait for their next work for a while without sleeping.
//! Threads of our own would share the cores with them, so that runtime runs our work too where it is loaded.

use libloading::os::unix::Library;
use std::{
    ffi::{c_uint, c_void},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// `void GOMP_parallel (void (*fn) (void *), void *data, unsigned num_threads, unsigned flags)`.
type GompParallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

fn openmp() -> Option<GompParallel> {
    static FOUND: OnceLock<Option<GompParallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: the symbol of this name has this type in GNU's OpenMP runtime, and in LLVM's, which offers it for
        // compatibility. It stays loaded as long as the program runs.
        unsafe {
            Library::this()
                .get(b"GOMP_parallel\0")
                .ok()
                .map(|symbol| *symbol)
        }
    })
}

struct Job<'a, S> {
    next: AtomicUsize,
    count: usize,
    state: &'a (dyn Fn() -> S + Sync),
    work: &'a (dyn Fn(&mut S, usize) + Sync),
}

impl<S> Job<'_, S> {
    /// Takes work until none is left.
    fn run(&self) {
        let mut state = None;
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return;
            }
            (self.work)(state.get_or_insert_with(self.state), index);
        }
    }
}

extern "C" fn run<S>(job: *mut c_void) {
    // SAFETY: `for_each` passes a job that lives until all threads have returned. A panic in here aborts, as it must:
    // it cannot pass through foreign frames.
    let job = unsafe { &*job.cast::<Job<'_, S>>() };
    job.run();
}

/// Calls `work` once for each index below `count`, in up to `threads` threads, each with a `state` of its own.
pub(crate) fn for_each<S>(
    threads: usize,
    count: usize,
    state: &(dyn Fn() -> S + Sync),
    work: &(dyn Fn(&mut S, usize) + Sync),
) {
    let job = Job {
        next: AtomicUsize::new(0),
        count,
        state,
        work,
    };
    let threads = threads.min(count);
    if threads <= 1 {
        return job.run();
    }
    match openmp() {
        // SAFETY: the job is shared, its closures are `Sync`, and the call returns after all threads did.
        Some(parallel) => unsafe {
            let data = (&raw const job).cast_mut().cast();
            parallel(run::<S>, data, threads as c_uint, 0);
        },
        None => std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| job.run());
            }
            job.run();
        }),
    }
}

/// Calls `work` once for each of `parts`, in up to `threads` threads.
pub(crate) fn for_all<T: Send>(threads: usize, parts: Vec<T>, work: &(dyn Fn(T) + Sync)) {
    let count = parts.len();
    let parts: Vec<Mutex<Option<T>>> = parts
        .into_iter()
        .map(|part| Mutex::new(Some(part)))
        .collect();
    for_each(threads, count, &|| (), &|(), index| {
        let part = parts[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(part) = part {
            work(part);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_is_worked_on_once() {
        for threads in [1, 2, 7] {
            let seen = Mutex::new(vec![0; 100]);
            for_each(threads, 100, &|| 0usize, &|mine, index| {
                *mine += 1;
                seen.lock().unwrap()[index] += 1;
            });
            assert_eq!(seen.into_inner().unwrap(), vec![1; 100]);
        }
        for_each(3, 0, &|| (), &|(), _| panic!("nothing to do"));
    }
}
