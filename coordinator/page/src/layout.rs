//! What all pages have in common.

use crate::{Page, visit::Visit};
use halfheard_shared::{ids::SweepId, text::plain};
use maud::{DOCTYPE, Markup, html};

/// Where a page belongs in the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The list of sweeps, and everything about one.
    Sweeps,
    /// Workers.
    Workers,
    /// Failures of all sweeps.
    Failures,
}

/// The sections with their addresses.
const SECTIONS: [(Section, &str, &str); 3] = [
    (Section::Sweeps, "/", "Sweeps"),
    (Section::Workers, "/workers", "Workers"),
    (Section::Failures, "/failures", "Failures"),
];

/// The pages of one sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tab {
    /// Its trainings.
    Map,
    /// Tables and figures.
    Results,
    /// What failed.
    Failures,
}

/// Their addresses, below that of the sweep.
const TABS: [(Tab, &str, &str); 3] = [
    (Tab::Map, "", "Map"),
    (Tab::Results, "/results", "Results"),
    (Tab::Failures, "/failures", "Failures"),
];

/// A whole page: `main` is replaced by the live script when something changed.
pub(crate) fn shell(page: &Page, section: Section, title: &str, main: &Markup) -> Markup {
    let visit = Visit::current();
    let nav = html! {
        nav aria-label="Pages" {
            @for (own, address, name) in SECTIONS {
                a href=(address) aria-current=[(own == section).then_some("page")] { (name) }
            }
        }
        p class="live" {
            span id="live" role="status" {}
            " "
            @if !page.access.control { span class="muted" { "read-only" } }
            @if let Some(user) = &visit.user { " " span class="muted" { (user) } }
            " "
            a id="refresh" href="" { "Refresh" }
        }
    };
    let main = html! {
        @if let Some(did) = visit.did {
            p class="message" role="status" data-keep="" { (did) }
        }
        (main)
    };
    document(title, &nav, &main, true)
}

/// A page without navigation.
pub(crate) fn bare(title: &str, main: &Markup) -> Markup {
    document(title, &html! {}, main, false)
}

/// Links between the pages of one sweep.
pub(crate) fn tabs(sweep: SweepId, here: Tab) -> Markup {
    html! {
        nav class="tabs" aria-label="Sweep" {
            @for (tab, path, name) in TABS {
                a href={ "/sweeps/" (sweep) (path) } aria-current=[(tab == here).then_some("page")] {
                    (name)
                }
            }
        }
    }
}

/// A table that scrolls sideways where it does not fit: rows below a heading for each column.
pub(crate) fn table(caption: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        div class="scroll" {
            table {
                caption { (caption) }
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { (rows) }
            }
        }
    }
}

fn document(title: &str, nav: &Markup, main: &Markup, live: bool) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (plain(title)) " · Halfheard" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="data:,";
                @if live { script src="/live.js" defer {} }
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                header {
                    a class="home" href="/" { "Halfheard" }
                    (nav)
                }
                main id="main" tabindex="-1" { (main) }
            }
        }
    }
}
