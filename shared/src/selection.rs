//! Which splits choose checkpoints, and what the choices are called.
//!
//! Of a training that selects on both splits, checkpoints and metrics of the validation split have the plain
//! ids, `mae`, and those of the test split [`TEST`] before it, `test:mae`. A training that selects on one
//! split, whichever it is, has plain ids only.

use crate::{benchmark::Benchmark, dataset::Split, wire::Selection};

/// What stands before the ids of what the test split chose or measured, where both splits do.
pub const TEST: &str = "test:";

impl Selection {
    /// The splits that are predicted after every epoch, each with what stands before its ids.
    pub fn splits(self) -> &'static [(Split, &'static str)] {
        match self {
            Self::Validation => &[(Split::Valid, "")],
            Self::Test => &[(Split::Test, "")],
            Self::Both => &[(Split::Valid, ""), (Split::Test, TEST)],
        }
    }

    /// The ids of the checkpoints that a training leaves.
    pub fn criteria(self, benchmark: Benchmark) -> Vec<String> {
        let criteria = |prefix: &'static str| {
            let criteria = benchmark.criteria().iter();
            criteria.map(move |criterion| format!("{prefix}{}", criterion.id))
        };
        let splits = self.splits().iter();
        splits.flat_map(|(_, prefix)| criteria(prefix)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criteria_of_both_splits_are_told_apart() {
        let of = |selection: Selection| selection.criteria(Benchmark::Sims);
        let plain = ["acc2", "acc3", "acc5", "mae"];
        assert_eq!(of(Selection::Validation), plain);
        assert_eq!(of(Selection::Test), plain);
        let both = of(Selection::Both);
        assert_eq!(both[..4], plain);
        assert_eq!(
            both[4..],
            ["test:acc2", "test:acc3", "test:acc5", "test:mae"]
        );
    }
}
