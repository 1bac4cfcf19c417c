//! A certificate in the style of a report: a section of one, and a page of its own.

use super::{Item, Report, Section};
use crate::certify::{Certificate, Options, certify, grid};
use halfheard_shared::results::Results;

/// The heading of the section.
pub(super) const TITLE: &str = "Are the published numbers reproduced?";

/// The items of a report's section; none if no number could be tested, which the command explains.
pub(super) fn items(results: &Results) -> Vec<Item> {
    let certificate = certify(results, Options::default());
    if certificate.tested() == 0 {
        return Vec::new();
    }
    overview(&certificate)
}

fn overview(certificate: &Certificate) -> Vec<Item> {
    let texts = [grid::rule(certificate), grid::chance(certificate)];
    let texts = texts.into_iter().map(Item::Text);
    texts
        .chain(grid::overview(certificate).into_iter().map(Item::Grid))
        .collect()
}

/// A page with the verdict on every number.
pub fn certificate(certificate: &Certificate) -> Report {
    let details = grid::details(certificate);
    Report {
        sweep: certificate.sweep.clone(),
        id: certificate.id.clone(),
        summary: [format!("Certificate of sweep {}.", certificate.id)]
            .into_iter()
            .chain(certificate.protocols.clone())
            .collect(),
        sections: vec![
            Section {
                id: "certificate",
                title: TITLE,
                items: overview(certificate),
            },
            Section {
                id: "numbers",
                title: "Every published number",
                items: details.into_iter().map(Item::Grid).collect(),
            },
        ],
    }
}
