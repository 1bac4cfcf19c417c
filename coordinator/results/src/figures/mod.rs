//! The paper's figures, drawn from what a sweep left in the database and the artifact store.
//!
//! | figure | what it shows | from |
//! |---|---|---|
//! | 2 | metrics over the missing rate | the view `cell` |
//! | 4 | the labels of each split | the database (test), the imported dataset (all) |
//! | 5, 6, 7 | confusion matrices on MOSI, MOSEI, SIMS | stored predictions |
//! | confusion | the same on any dataset | stored predictions |
//! | 8 | LNLN's language feature and its corrected dominant feature | the artifact store |
//! | ranks | mean ranks, and the difference that counts | the view `cell` |
//!
//! [`draw`] makes an SVG of text and shapes, the same bytes from the same results; [`png`] turns it
//! into pixels with a font that the program carries.

mod canvas;
mod confusion;
mod curves;
mod features;
mod labels;
mod plot;
pub mod png;
mod ranks;
mod select;
mod sources;
mod style;
mod tsne;

pub use canvas::DrawError;
pub use ranks::{critical_difference, of_measured as diagram};

use halfheard_shared::{
    artifacts::ArtifactError, benchmark::Benchmark, broker::BrokerError, case::Rate,
    dataset::DatasetError, features::FeaturesError, ids::SweepId,
};
use halfheard_store::{Store, StoreError, predictions::PredictionsError};
pub use sources::Sources;
use std::str::FromStr;

/// Which figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2: metrics over the missing rate.
    Curves,
    /// 4: label distributions.
    Labels,
    /// 5, 6, 7: confusion matrices on a dataset.
    Confusion(Benchmark),
    /// The same on the one dataset that is asked for or that the sweep has.
    ConfusionOfOne,
    /// 8: t-SNE of LNLN's features.
    Features,
    /// The critical-difference diagram, which the paper does not have.
    Ranks,
}

impl Kind {
    /// Those of the paper.
    pub const PAPER: [Kind; 6] = [
        Kind::Curves,
        Kind::Labels,
        Kind::Confusion(Benchmark::Mosi),
        Kind::Confusion(Benchmark::Mosei),
        Kind::Confusion(Benchmark::Sims),
        Kind::Features,
    ];

    /// What it is asked for by: its number in the paper, or `ranks`.
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
                format!(
                    "there is no figure `{text}`: there are 2, 4, 5, 6, 7, 8, confusion and ranks"
                )
            })
    }
}

/// What of a sweep to draw; empty lists stand for what suits the figure.
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

/// A figure, drawn.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Which.
    pub kind: Kind,
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// What is to be known of this one: what it lacks, what was chosen.
    pub notes: Vec<String>,
    /// The drawing.
    pub svg: String,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Predictions that cannot be used.
    #[error(transparent)]
    Predictions(#[from] PredictionsError),
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// The artifact store.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// The broker, in whose bucket the artifacts are.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Features that are damaged.
    #[error("{key} cannot be used")]
    Damaged {
        /// Their name in the artifact store.
        key: String,
        /// Why.
        #[source]
        source: FeaturesError,
    },
    /// Plotters.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// The thread that draws died.
    #[error("drawing did not come to an end: {0}")]
    Thread(#[from] tokio::task::JoinError),
    /// A model that the sweep does not have.
    #[error("the sweep has no method `{given}`{}: it has {have}", near(.nearest))]
    Method {
        /// As it was written.
        given: String,
        /// The nearest that there is.
        nearest: Option<String>,
        /// All that there are.
        have: String,
    },
    /// A metric that there is not.
    #[error("there is no metric `{given}`{}: there are {have}", near(.nearest))]
    Metric {
        /// As it was written.
        given: String,
        /// The nearest that there is.
        nearest: Option<String>,
        /// All that there are.
        have: String,
    },
    /// A dataset or a rate that the sweep does not have.
    #[error("{what} is not in the sweep: it has {have}")]
    NotInSweep {
        /// What.
        what: String,
        /// What there is of the kind.
        have: String,
    },
    /// A figure of one dataset, and several that it could be of.
    #[error("the figure is of one dataset: name it with --dataset; the sweep has {have}")]
    Several {
        /// All that there are.
        have: String,
    },
    /// Nothing to show yet.
    #[error("the sweep has {what}: `coord status` says how far it is")]
    Nothing {
        /// What is lacking.
        what: String,
    },
    /// No features were kept.
    #[error(
        "the artifact store {store} has no features of {what}: workers leave them there when they \
         evaluate LNLN at a missing rate; name the store that they write to with --artifacts, or \
         run these evaluations once more in a new sweep (`coord submit --new`)"
    )]
    NoFeatures {
        /// The store's address.
        store: String,
        /// Of what.
        what: String,
    },
    /// A method that shows no features.
    #[error("{0} has no corrected dominant feature: Figure 8 is of LNLN and its variants")]
    NotLnln(String),
    /// An option that the figure has no use for.
    #[error("figure {figure} {why}: leave {option} out")]
    Useless {
        /// The figure.
        figure: &'static str,
        /// Why it has no use for it.
        why: &'static str,
        /// The option.
        option: &'static str,
    },
}

impl From<sqlx::Error> for FigureError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// `; did you mean `lnln`?`, as far as it fits into a sentence.
fn near(nearest: &Option<String>) -> String {
    let nearest = nearest.as_ref();
    nearest.map_or(String::new(), |name| format!(" (did you mean `{name}`?)"))
}

/// Draws a figure of a sweep.
///
/// # Errors
///
/// The database's and the artifact store's; a request that the sweep or the figure has no answer
/// to.
pub async fn draw(
    store: &Store,
    settings: &Sources<'_>,
    sweep: SweepId,
    kind: Kind,
    request: &Request,
) -> Result<Figure, FigureError> {
    check(kind, request)?;
    let content = select::content(store, sweep).await?;
    match kind {
        Kind::Curves => curves::figure(store, sweep, &content, request).await,
        Kind::Labels => labels::figure(store, settings, sweep, &content, request).await,
        Kind::Confusion(dataset) => {
            confusion::figure(store, sweep, &content, dataset, request).await
        }
        Kind::ConfusionOfOne => {
            let [dataset] = content.datasets(request)?[..] else {
                return Err(FigureError::Several {
                    have: content.names(),
                });
            };
            confusion::figure(store, sweep, &content, dataset, request).await
        }
        Kind::Features => features::figure(store, settings, sweep, &content, request).await,
        Kind::Ranks => ranks::figure(store, sweep, &content, request).await,
    }
}

/// An option that would change nothing is a misunderstanding.
fn check(kind: Kind, request: &Request) -> Result<(), FigureError> {
    let useless = |why, option| {
        Err(FigureError::Useless {
            figure: kind.id(),
            why,
            option,
        })
    };
    if kind != Kind::Curves {
        if !request.metrics.is_empty() {
            return useless("shows no metric of one's choice", "--metric");
        }
        if request.published {
            return useless("has no published numbers", "--published");
        }
    }
    match kind {
        Kind::Labels if !request.methods.is_empty() => useless("shows no methods", "--method"),
        Kind::Labels | Kind::Ranks if !request.rates.is_empty() => {
            useless("is not of single rates", "--rates")
        }
        Kind::Confusion(_) if !request.datasets.is_empty() => {
            useless("is of one dataset", "--dataset")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_asked_for_by_their_numbers() {
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

    #[test]
    fn options_without_use_are_refused() {
        let refused = |kind: Kind, request: Request| check(kind, &request).unwrap_err().to_string();
        let rates = Request {
            rates: vec![Rate::new(0.3).unwrap()],
            ..Request::default()
        };
        assert_eq!(
            refused(Kind::Labels, rates.clone()),
            "figure 4 is not of single rates: leave --rates out"
        );
        assert!(check(Kind::Features, &rates).is_ok());
        let published = Request {
            published: true,
            ..Request::default()
        };
        assert!(check(Kind::Curves, &published).is_ok());
        assert!(refused(Kind::Ranks, published).contains("--published"));
        let datasets = Request {
            datasets: vec![Benchmark::Sims],
            ..Request::default()
        };
        assert!(refused(Kind::Confusion(Benchmark::Mosi), datasets).contains("--dataset"));
    }
}
