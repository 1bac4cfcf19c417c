//! Why a figure cannot be drawn.

use super::DrawError;
use halfheard_shared::error::Hint;

/// Why a figure cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The drawing library.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// A model that the sweep does not have.
    #[error("the sweep has no method `{given}`{}: it has {have}", near(.nearest))]
    Method {
        /// As given.
        given: String,
        /// The most similar one.
        nearest: Option<String>,
        /// All of the sweep.
        have: String,
    },
    /// An unknown metric.
    #[error("unknown metric `{given}`{}: known are {have}", near(.nearest))]
    Metric {
        /// As given.
        given: String,
        /// The most similar one.
        nearest: Option<String>,
        /// All known ones.
        have: String,
    },
    /// A dataset or a rate that the sweep does not have.
    #[error("{what} is not in the sweep: it has {have}")]
    NotInSweep {
        /// What was requested.
        what: String,
        /// What the sweep has of the kind.
        have: String,
    },
    /// A figure of one dataset, of a sweep with several.
    #[error("the figure is of one dataset; the sweep has {have}")]
    Several {
        /// All of the sweep.
        have: String,
    },
    /// Results are missing.
    #[error("the sweep has {what}")]
    Nothing {
        /// What is missing.
        what: String,
    },
    /// No features were kept.
    #[error(
        "the artifact store {store} has no features of {what}, which workers leave there when they \
         evaluate LNLN at a missing rate"
    )]
    NoFeatures {
        /// The address of the store.
        store: String,
        /// Of what.
        what: String,
    },
    /// A method without the features of Figure 8.
    #[error("{0} has no corrected dominant feature: Figure 8 is of LNLN and its variants")]
    NotLnln(String),
    /// An option without effect.
    #[error("figure {figure} {why}: leave {option} out")]
    Useless {
        /// The figure.
        figure: &'static str,
        /// Why the option has no effect.
        why: &'static str,
        /// The option.
        option: &'static str,
    },
}

impl FigureError {
    /// Whether the sweep or its stores lack what the figure shows: a report goes without it.
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            FigureError::Nothing { .. }
                | FigureError::NotInSweep { .. }
                | FigureError::NoFeatures { .. }
                | FigureError::NotLnln(_)
        )
    }
}

impl Hint for FigureError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            FigureError::Several { .. } => "name it with --dataset",
            FigureError::Nothing { .. } => "`coord status` shows its progress",
            FigureError::NoFeatures { .. } => {
                "name the store that workers write to with --artifacts, or run these evaluations \
                 again in a new sweep (`coord submit --new`)"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

fn near(nearest: &Option<String>) -> String {
    let nearest = nearest.as_ref();
    nearest.map_or(String::new(), |name| format!(" (did you mean `{name}`?)"))
}
