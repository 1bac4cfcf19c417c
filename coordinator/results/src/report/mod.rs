//! A sweep written up: its tables and figures, the audits, and what they rest on.
//!
//! [`build`](build()) composes it, [`html`] renders one self-contained page, [`markdown`] the same as text
//! with image files. [`certificate`](certificate()) is the page of a certificate.

mod build;
mod certificate;
mod content;
pub mod html;
pub mod markdown;
mod provenance;

pub use build::{Parts, ReportError, build, figures};
pub use certificate::certificate;
pub use content::{Image, Item, Report, Section};
