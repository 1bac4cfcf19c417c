//! Kinds of figures and drawn figures.

use halfheard_shared::{benchmark::Benchmark, case::Rate};
use std::str::FromStr;

/// A kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2: metrics over the missing rate.
    Curves,
    /// 4: label distributions.
    Labels,
    /// 5, 6, 7: confusion matrices on a dataset.
    Confusion(Benchmark),
    /// The same on the only dataset of the request or of the sweep.
    ConfusionOfOne,
    /// 8: t-SNE of LNLN's features.
    Features,
    /// The critical-difference diagram, which the paper does not have.
    Ranks,
}

impl Kind {
    /// The figures of the paper.
    pub const PAPER: [Kind; 6] = [
        Kind::Curves,
        Kind::Labels,
        Kind::Confusion(Benchmark::Mosi),
        Kind::Confusion(Benchmark::Mosei),
        Kind::Confusion(Benchmark::Sims),
        Kind::Features,
    ];

    /// The id on the command line: the number in the paper, `confusion` or `ranks`.
    pub fn id(self) -> &'static str {
        match self {
            Kind::Curves => "2",
            Kind::Labels => "4",
            Kind::Confusion(Benchmark::Mosi) => "5",
            Kind::Confusion(Benchmark::Mosei) => "6",
            Kind::Confusion(Benchmark::Sims) => "7",
            Kind::Confusion(Benchmark::Own(_)) | Kind::ConfusionOfOne => "confusion",
            Kind::Features => "8",
            Kind::Ranks => "ranks",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Kind::PAPER
            .into_iter()
            .chain([Kind::ConfusionOfOne, Kind::Ranks]);
        all.into_iter()
            .find(|kind| kind.id() == text)
            .ok_or_else(|| {
                format!("unknown figure `{text}`: known are 2, 4, 5, 6, 7, 8, confusion and ranks")
            })
    }
}

/// What to draw of a sweep; empty lists stand for the figure's default.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Models: METHOD or METHOD/VARIANT.
    pub methods: Vec<String>,
    /// Datasets.
    pub datasets: Vec<Benchmark>,
    /// Metrics by their ids, for Figure 2.
    pub metrics: Vec<String>,
    /// Missing rates.
    pub rates: Vec<Rate>,
    /// Add the paper's numbers, for Figure 2.
    pub published: bool,
}

/// A drawn figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The kind.
    pub kind: Kind,
    /// The title.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// What it lacks and what was chosen.
    pub notes: Vec<String>,
    /// The drawing.
    pub svg: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_is_parsed_from_its_number() {
        for kind in Kind::PAPER {
            assert_eq!(kind.id().parse(), Ok(kind));
        }
        assert_eq!("ranks".parse(), Ok(Kind::Ranks));
        assert_eq!("confusion".parse(), Ok(Kind::ConfusionOfOne));
        let error = "3".parse::<Kind>().unwrap_err();
        assert!(
            error.contains("2, 4, 5, 6, 7, 8, confusion and ranks"),
            "{error}"
        );
    }
}
