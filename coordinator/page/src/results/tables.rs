//! One table of a sweep, as a page or as a file.

use super::made::Made;
use crate::{
    Page,
    error::PageError,
    layout::{Section, Tab, shell, tabs},
};
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use halfheard_analysis::tables::{Beside, TableRequest, Which};
use halfheard_results::tables::{
    Table,
    render::{Format, render},
};
use halfheard_shared::{
    results::Results,
    text::{count, plain},
};
use halfheard_store::sweeps::SweepRow;
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;
use std::sync::Arc;

/// The files that a table can be had as: what they are called, the end of the address, the content type.
const FILES: [(&str, &str, Format, &str); 4] = [
    ("CSV", "csv", Format::Csv, "text/csv; charset=utf-8"),
    (
        "LaTeX",
        "tex",
        Format::Latex,
        "application/x-tex; charset=utf-8",
    ),
    (
        "Markdown",
        "md",
        Format::Markdown,
        "text/markdown; charset=utf-8",
    ),
    ("JSON", "json", Format::Json, "application/json"),
];

/// What a table has beside its numbers.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// `published`.
    #[serde(default)]
    compare: String,
    /// `test`.
    #[serde(default)]
    selection: String,
    /// Anything but nothing.
    #[serde(default)]
    optimism: String,
}

impl Asked {
    fn request(&self, which: Which) -> TableRequest {
        TableRequest {
            beside: (self.compare == "published").then_some(Beside::Published),
            on_test: self.selection == "test",
            optimism: !self.optimism.is_empty(),
            ..TableRequest::of(which)
        }
    }

    /// What stands behind the address, of known words only.
    fn query(&self) -> &'static str {
        match (
            self.compare.as_str(),
            self.selection.as_str(),
            self.optimism.as_str(),
        ) {
            ("published", "test", _) => "?compare=published&selection=test",
            ("published", _, "") => "?compare=published",
            ("published", _, _) => "?compare=published&optimism=1",
            (_, "test", _) => "?selection=test",
            (_, _, "") => "",
            _ => "?optimism=1",
        }
    }
}

pub(super) async fn show(
    State(page): State<Page>,
    Extension(made): Extension<Arc<Made>>,
    Path((sweep, name)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let sweep = page.store.find_sweep(&sweep).await?;
    let (name, end) = name.split_once('.').unwrap_or((&name, ""));
    let which: Which = name.parse().map_err(PageError::NotFound)?;
    let file = FILES.into_iter().find(|(_, known, _, _)| *known == end);
    if file.is_none() && !end.is_empty() {
        return Err(PageError::NotFound(format!(
            "tables end in .csv, .tex, .md or .json, not in .{}",
            plain(end)
        )));
    }
    let read = made.results(&page, sweep.id).await?;
    let request = asked.request(which);
    if (request.on_test || request.optimism) && !has_test_choice(&read) {
        return Err(PageError::BadRequest(
            "this sweep has no checkpoints that the test split chose beside others".to_owned(),
        ));
    }
    let table = made.table(&page, sweep.id, &read, request).await?;
    if let Some((_, end, format, content)) = file {
        let name = format!("attachment; filename=\"table-{which}.{end}\"");
        let headers = [
            (header::CONTENT_TYPE, content.to_owned()),
            (header::CONTENT_DISPOSITION, name),
        ];
        return Ok((headers, render(&table, format, false)).into_response());
    }
    let title = format!("{}, {}", heading(&table), plain(&sweep.name));
    let main = html! {
        h1 { (heading(&table)) }
        (tabs(sweep.id, Tab::Results))
        (options(&sweep, which, &asked, &read))
        p { (missing(&table)) " " (downloads(&sweep, which, &asked)) }
        (content(&table))
        p { a href={ "/sweeps/" (sweep.id) "/results" } { "All tables and figures of this sweep" } }
    };
    Ok(shell(&page, Section::Sweeps, &title, &main).into_response())
}

/// Whether the test split chose checkpoints beside the validation split.
fn has_test_choice(results: &Results) -> bool {
    results.cells_on_test.keys().next().is_some()
}

/// `Table 2. Overall performance`.
pub(super) fn heading(table: &Table) -> String {
    match table.number {
        Some(number) => format!("Table {number}. {}", plain(&table.title)),
        None => plain(&table.title),
    }
}

/// The table itself, with its captions and notes. What the names in it hold beside text is replaced.
pub(super) fn content(table: &Table) -> Markup {
    html! {
        div class="scroll" { (PreEscaped(plain(&render(table, Format::Html, false)))) }
    }
}

/// Links to the same table with other numbers.
fn options(sweep: &SweepRow, which: Which, asked: &Asked, results: &Results) -> Markup {
    let published = which.layout().is_some_and(|layout| {
        layout
            .datasets(&results.known)
            .iter()
            .any(|d| d.published().is_some())
    });
    let mut links = vec![("our numbers", "")];
    if published {
        links.push(("beside the published ones", "?compare=published"));
    }
    if has_test_choice(results) {
        links.push((
            "with checkpoints that the test split chose",
            "?selection=test",
        ));
        links.push(("how much better those look", "?optimism=1"));
    }
    html! {
        @if links.len() > 1 {
            nav aria-label="Numbers" class="tabs" {
                @for (name, query) in links {
                    a href={ "/sweeps/" (sweep.id) "/tables/" (which) (query) }
                        aria-current=[(query == asked.query()).then_some("page")] { (name) }
                }
            }
        }
    }
}

/// Links to the table as files.
pub(super) fn downloads(sweep: &SweepRow, which: Which, asked: &Asked) -> Markup {
    html! {
        span class="downloads" {
            @for (number, (name, end, _, _)) in FILES.into_iter().enumerate() {
                @if number > 0 { " · " }
                a href={ "/sweeps/" (sweep.id) "/tables/" (which) "." (end) (asked.query()) }
                    download="" aria-label={ "Table " (which) " as " (name) } { (name) }
            }
        }
    }
}

/// How many numbers of a table have all their results, and how many it has.
fn completeness(table: &Table) -> (usize, usize) {
    let values = table.blocks.iter().flat_map(|block| &block.rows);
    let values = values.flat_map(|row| row.cells.iter().flatten());
    let values = values.filter(|value| value.expected > 0);
    values.fold((0, 0), |(complete, all), value| {
        (
            complete + usize::from(value.completed >= value.expected),
            all + 1,
        )
    })
}

/// What is still missing, in a sentence.
pub(super) fn missing(table: &Table) -> String {
    match completeness(table) {
        (_, 0) => "This sweep has nothing of this table.".to_owned(),
        (complete, all) if complete == all => format!("Complete: {}.", count(all, "number")),
        (complete, all) => format!(
            "{} of {} wait for results (… has none yet, others are means of the seeds so far).",
            all - complete,
            count(all, "number")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_repeats_known_words_only() {
        let query = |compare: &str, selection: &str, optimism: &str| {
            Asked {
                compare: compare.to_owned(),
                selection: selection.to_owned(),
                optimism: optimism.to_owned(),
            }
            .query()
        };
        assert_eq!(query("", "", ""), "");
        assert_eq!(query("published", "", ""), "?compare=published");
        assert_eq!(query("\"><script>", "x", ""), "");
        assert_eq!(
            query("published", "test", ""),
            "?compare=published&selection=test"
        );
        assert_eq!(query("", "", "<b>"), "?optimism=1");
    }
}
