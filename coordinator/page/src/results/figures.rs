//! One figure of a sweep, as a page or as SVG.

use super::{
    made::{Drawn, Made},
    offered::Offered,
};
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
use halfheard_results::figures::Figure;
use halfheard_shared::{
    results::{JobOutcome, JobTally, Results},
    text::plain,
};
use halfheard_store::sweeps::SweepRow;
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;

/// Letters in a line of what stands in place of a figure.
const LINE: usize = 80;

/// How the figure is used.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// Whether a page shows it as an image: then there is always one.
    #[serde(default)]
    inline: String,
}

pub(super) async fn show(
    State(page): State<Page>,
    Extension(made): Extension<Arc<Made>>,
    Path((sweep, name)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let sweep = page.store.find_sweep(&sweep).await?;
    let (name, as_svg) = match name.strip_suffix(".svg") {
        Some(name) => (name, true),
        None => (name.as_str(), false),
    };
    let read = made.results(&page, sweep.id).await?;
    let offered = &read.figures;
    let Some(figure) = offered.iter().find(|figure| figure.name == name) else {
        let names: Vec<&str> = offered.iter().map(|figure| figure.name.as_str()).collect();
        return Err(PageError::NotFound(format!(
            "this sweep has no figure `{}`: it may have {}",
            plain(name),
            names.join(", ")
        )));
    };
    let drawn = made.figure(&page, sweep.id, &read, figure).await?;
    if as_svg {
        return match drawn {
            Ok(figure) => Ok(svg(figure.svg.clone())),
            Err(reason) if asked.inline.is_empty() => Err(PageError::NotFound(format!(
                "{} cannot be drawn yet: {reason}",
                figure.heading()
            ))),
            Err(reason) => Ok(svg(in_its_place(&reason).into_string())),
        };
    }
    let title = format!("{}, {}", figure.heading(), plain(&sweep.name));
    let main = html! {
        h1 { (figure.heading()) }
        (tabs(sweep.id, Tab::Results))
        (shown(&sweep, &read, figure, Some(&drawn)))
        p { a href={ "/sweeps/" (sweep.id) "/results" } { "All tables and figures of this sweep" } }
    };
    Ok(shell(&page, Section::Sweeps, &title, &main).into_response())
}

fn svg(text: String) -> Response {
    (
        [(header::CONTENT_TYPE, "image/svg+xml; charset=utf-8")],
        text,
    )
        .into_response()
}

/// A figure with what is said about it; `None` if it is still being drawn.
pub(super) fn shown(
    sweep: &SweepRow,
    results: &Results,
    figure: &Offered,
    drawn: Option<&Drawn>,
) -> Markup {
    let address = format!("/sweeps/{}/figures/{}.svg", sweep.id, figure.name);
    // Another address once there are other results: the live page then loads the image again.
    let done = JobTally::with(&results.tally, JobOutcome::Done);
    let image = format!("{address}?inline=1&done={done}");
    html! {
        @match drawn {
            Some(Err(reason)) => {
                p { (figure.heading()) " cannot be drawn yet: " (plain(reason)) "." }
            }
            Some(Ok(drawn)) => {
                figure class="drawn" {
                    a href=(address) { img src=(image) alt=(alt(drawn)); }
                    figcaption { strong { (figure.heading()) ". " } (sentence(&drawn.title)) " " (sentence(&drawn.caption)) }
                    @if !drawn.notes.is_empty() {
                        ul class="notes" { @for note in &drawn.notes { li { (plain(note)) } } }
                    }
                    p { a href=(address) download="" { "SVG" } }
                }
            }
            None => {
                figure class="drawn" {
                    img src=(image) alt={ (figure.heading()) ", being drawn" };
                    figcaption { strong { (figure.heading()) } }
                }
            }
        }
    }
}

fn alt(figure: &Figure) -> String {
    format!("{}. The tables have the numbers.", plain(&figure.title))
}

/// With a full stop at its end.
fn sentence(text: &str) -> String {
    let text = plain(text);
    match text.trim_end_matches('.') {
        "" => String::new(),
        text => format!("{text}."),
    }
}

/// A drawing that says why there is none.
fn in_its_place(reason: &str) -> Markup {
    let reason = format!("Not drawn yet: {}", plain(reason));
    let mut lines = vec![String::new()];
    for word in reason.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < LINE => {
                line.push_str(if line.is_empty() { "" } else { " " });
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    let height = 30 + 20 * lines.len();
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width="640" height=(height)
            viewBox={ "0 0 640 " (height) } font-family="sans-serif" font-size="15" {
            rect width="640" height=(height) fill="#ffffff" {}
            @for (number, line) in lines.iter().enumerate() {
                text x="12" y=(30 + 20 * number) fill="#222222" { (line) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_stands_in_place_of_a_figure_whatever_it_holds() {
        let reason = format!("no </svg><script>alert(1)</script> {}", "word ".repeat(40));
        let svg = in_its_place(&reason).into_string();
        assert!(
            svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""),
            "{svg}"
        );
        assert!(svg.contains("no &lt;/svg&gt;&lt;script&gt;"), "{svg}");
        assert!(
            !svg.contains("<script") && svg.matches("<text").count() >= 3,
            "{svg}"
        );
    }
}
