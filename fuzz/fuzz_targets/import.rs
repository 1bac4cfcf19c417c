//! Feature pickles: refused with a reason, or imported into a dataset that opens.

#![no_main]

use halfheard_fuzz::Scratch;
use halfheard_import::{
    import::{Request, import},
    nonfinite::{NonFinite, Reference},
};
use halfheard_shared::dataset::{DataFolder, Dataset, Kind};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|input: &[u8]| {
    let file = SCRATCH.put("x.pkl", input);
    let folder = DataFolder::new(SCRATCH.path().join("data"));
    let request = Request {
        file: &file,
        kind: Kind::Mosi,
        nonfinite: NonFinite::Zero,
        reference: Reference::default(),
        name: "x",
        folder: &folder,
        replace: true,
        max_bytes: None,
    };
    match import(&request, &mut |_, _, _| {}) {
        Ok(imported) => {
            Dataset::open(&imported.path).expect("what was imported opens");
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
});
