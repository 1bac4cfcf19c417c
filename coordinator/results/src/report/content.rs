//! What a report consists of.

use crate::{audit::Finding, certify::Grid, tables::Table};

/// A sweep, written up.
#[derive(Clone, Debug)]
pub struct Report {
    /// The name of the sweep.
    pub sweep: String,
    /// The id of the sweep.
    pub id: String,
    /// What the sweep is, one paragraph each.
    pub summary: Vec<String>,
    /// The sections, from top to bottom.
    pub sections: Vec<Section>,
}

/// A part with a heading.
#[derive(Clone, Debug)]
pub struct Section {
    /// The anchor for links.
    pub id: &'static str,
    /// The heading.
    pub title: &'static str,
    /// The items, from top to bottom.
    pub items: Vec<Item>,
}

/// Something in a section.
#[derive(Clone, Debug)]
pub enum Item {
    /// A paragraph.
    Text(String),
    /// A table with its notes.
    Table(Table),
    /// Rows of text.
    Grid(Grid),
    /// A figure.
    Figure(Image),
    /// The findings of an audit, after a sentence that counts them.
    Findings {
        /// What was audited.
        subject: String,
        /// The findings.
        findings: Vec<Finding>,
    },
    /// Names with values.
    Facts(Vec<(String, String)>),
    /// The text of a file, verbatim.
    File {
        /// Its title.
        title: String,
        /// Its text.
        text: String,
    },
}

/// A rendered figure.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name of its files, without extension: `figure-2`.
    pub name: String,
    /// `Figure 2.`, or empty.
    pub number: String,
    /// Title, caption and notes.
    pub caption: String,
    /// The drawing.
    pub svg: String,
    /// The same as PNG.
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
