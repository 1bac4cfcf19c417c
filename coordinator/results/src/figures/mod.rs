//! The paper's figures, drawn from a sweep's results.
//!
//! | figure | shows | from |
//! |---|---|---|
//! | 2 | metrics over the missing rate | cells |
//! | 4 | the labels of each split | stored test labels, manifests of imported datasets |
//! | 5, 6, 7 | confusion matrices on MOSI, MOSEI, SIMS | predictions |
//! | confusion | the same on any dataset | predictions |
//! | 8 | LNLN's language feature and its corrected dominant feature | artifacts |
//! | ranks | mean ranks and their critical difference | cells |
//!
//! [`needs`] says what a figure needs beside the results; [`draw`] makes an SVG of text and shapes, the
//! same bytes from the same results; [`png`] renders it with a font that the program carries.

mod canvas;
mod confusion;
mod curves;
mod draw;
mod error;
mod features;
mod figure;
mod inputs;
mod labels;
mod mark;
mod plot;
pub mod png;
mod ranks;
mod select;
mod style;
mod tsne;

pub use canvas::DrawError;
pub use draw::{draw, needs};
pub use error::FigureError;
pub use figure::{Figure, Kind, Request};
pub use inputs::{Inputs, LoadedFeatures, NeededFeatures, Needs, SplitCounts};
pub use ranks::{critical_difference, of_measurements as rank_diagram};
