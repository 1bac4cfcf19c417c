//! A sweep written up: every table and figure, what was found wrong, and what it all rests on.
//!
//! [`gather`] collects it from the database, [`html`] makes one self-contained page of it, [`markdown`]
//! the same as text with image files.

pub mod gather;
pub mod html;
pub mod markdown;
mod provenance;

use crate::{audit::Finding, tables::Table};

/// A sweep, written up.
#[derive(Clone, Debug)]
pub struct Report {
    /// The sweep's name.
    pub sweep: String,
    /// Its id.
    pub id: String,
    /// What it is, in a few sentences.
    pub summary: Vec<String>,
    /// From top to bottom.
    pub sections: Vec<Section>,
}

/// A part with a heading.
#[derive(Clone, Debug)]
pub struct Section {
    /// For links: `tables`.
    pub id: &'static str,
    /// The heading.
    pub title: &'static str,
    /// What is in it.
    pub items: Vec<Item>,
}

/// Something in a section.
#[derive(Clone, Debug)]
pub enum Item {
    /// Text.
    Text(String),
    /// A table, with what it rests on.
    Table(Table),
    /// A figure.
    Figure(Image),
    /// What an audit found, after a sentence that counts it.
    Findings {
        /// What was audited.
        subject: String,
        /// What was found.
        findings: Vec<Finding>,
    },
    /// Names and values.
    Facts(Vec<(String, String)>),
    /// A file's text, as it is.
    File {
        /// What it is.
        title: String,
        /// Its text.
        text: String,
    },
}

/// A figure, drawn.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name of its file, without ending: `figure-2`.
    pub name: String,
    /// `Figure 2.`, or empty.
    pub number: String,
    /// What it shows.
    pub caption: String,
    /// The drawing.
    pub svg: String,
    /// The same as pixels.
    pub png: Vec<u8>,
}

impl Report {
    /// All figures.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        let items = self.sections.iter().flat_map(|section| &section.items);
        items.filter_map(|item| match item {
            Item::Figure(image) => Some(image),
            _ => None,
        })
    }
}
