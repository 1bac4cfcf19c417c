//! The report as one self-contained HTML page: style and drawings are in it, and no script.

use super::{Image, Item, Report};
use crate::{
    audit::{Finding, render::Counts},
    certify::Grid,
    tables::html as table,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// Nothing is fetched and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// Renders the page.
pub fn render(report: &Report) -> String {
    let mut folds = Folds::default();
    let page = html! {
        (DOCTYPE) "\n"
        html lang="en" {
            head {
                meta charset="utf-8"; "\n"
                meta name="viewport" content="width=device-width, initial-scale=1"; "\n"
                meta http-equiv="Content-Security-Policy" content=(POLICY); "\n"
                title { "halfheard: " (report.sweep) } "\n"
                style { (PreEscaped(STYLE)) }
            } "\n"
            body {
                header {
                    h1 { "halfheard: " (report.sweep) } "\n"
                    @for paragraph in &report.summary { p { (paragraph) } "\n" }
                    nav {
                        ul {
                            @for section in &report.sections {
                                li { a href={ "#" (section.id) } { (section.title) } } "\n"
                            }
                        }
                    }
                } "\n"
                main {
                    @for section in &report.sections {
                        section id=(section.id) {
                            h2 { (section.title) } "\n"
                            @for item in &section.items { (render_item(item, &mut folds)) "\n" }
                        } "\n"
                    }
                }
            }
        } "\n"
    };
    page.into_string()
}

/// Numbers the folds of a page.
#[derive(Default)]
struct Folds(usize);

impl Folds {
    /// A part that is folded on a screen until its heading is clicked, and open on paper, where a closed
    /// `details` element would be empty.
    fn fold(&mut self, class: &str, heading: &Markup, body: &Markup) -> Markup {
        self.0 += 1;
        let id = format!("fold-{}", self.0);
        html! {
            div class={ "fold " (class) } {
                input type="checkbox" id=(id);
                label for=(id) { (heading) } "\n"
                div class="folded" { (body) }
            } "\n"
        }
    }
}

fn render_item(item: &Item, folds: &mut Folds) -> Markup {
    match item {
        Item::Text(text) => html! { p { (text) } },
        Item::Table(own) => table::render(own),
        Item::Grid(grid) if grid.folded => {
            folds.fold("file", &html! { (grid.title) }, &render_grid(grid))
        }
        Item::Grid(grid) => render_grid(grid),
        Item::Figure(image) => figure(image),
        Item::Findings { subject, findings } => html! {
            h3 { "Audit of " (subject) } "\n"
            p { (Counts::of(findings).text()) "." } "\n"
            @for finding in findings { (render_finding(finding, folds)) }
        },
        Item::Facts(facts) => html! {
            dl {
                @for (name, value) in facts { dt { (name) } dd { (value) } "\n" }
            }
        },
        Item::File { title, text } => {
            folds.fold("file", &html! { (title) }, &html! { pre { (text) } })
        }
    }
}

fn render_grid(grid: &Grid) -> Markup {
    html! {
        figure class="grid" {
            table {
                caption { (grid.title) }
                thead {
                    tr {
                        @for heading in &grid.headings { th scope="col" { (heading) } }
                    }
                } "\n"
                tbody {
                    @for row in &grid.rows {
                        tr {
                            @for (column, text) in row.iter().enumerate() {
                                @if column == 0 {
                                    th scope="row" { (text) }
                                } @else {
                                    td { (text) }
                                }
                            }
                        } "\n"
                    }
                }
            }
        }
    }
}

fn figure(image: &Image) -> Markup {
    // HTML has no XML declaration.
    let start = image.svg.find("<svg").unwrap_or(0);
    html! {
        figure class="drawing" role="img" aria-label=(image.caption) {
            (PreEscaped(own_ids(&image.svg[start..], &image.name))) "\n"
            figcaption { b { (image.number) } " " (image.caption) }
        }
    }
}

/// Makes the ids in a drawing unique on the page.
fn own_ids(svg: &str, name: &str) -> String {
    svg.replace("id=\"", &format!("id=\"{name}-"))
        .replace("url(#", &format!("url(#{name}-"))
        .replace("href=\"#", &format!("href=\"#{name}-"))
}

fn render_finding(finding: &Finding, folds: &mut Folds) -> Markup {
    let severity = finding.severity.id();
    let heading = html! {
        span { (severity) } " " code { (finding.rule.id()) } " " (finding.place())
    };
    let body = html! {
        p { (finding.what) } "\n"
        ul { @for line in &finding.numbers { li { (line) } "\n" } }
        @match &finding.known {
            Some(errata) if errata.is_empty() => { p { "Not in the errata." } "\n" }
            Some(errata) => { p { "Known: " (errata.join("; ")) } "\n" }
            None => {}
        }
        p { "Why it matters: " (finding.rule.why()) "." }
    };
    folds.fold(&format!("finding {severity}"), &heading, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{figures, report::Section};

    #[test]
    fn page_is_self_contained_and_escapes_all_text() {
        let image = Image {
            name: "figure-2".to_owned(),
            number: "Figure 2.".to_owned(),
            caption: "a < b".to_owned(),
            svg: figures::critical_difference("a", &[("m".to_owned(), 1.0)], None).unwrap(),
            png: Vec::new(),
        };
        let report = Report {
            sweep: "<script>alert(1)</script>".to_owned(),
            id: "id".to_owned(),
            summary: vec!["1 & 2".to_owned()],
            sections: vec![Section {
                id: "all",
                title: "All",
                items: vec![
                    Item::Text("<b>".to_owned()),
                    Item::Figure(image),
                    Item::Facts(vec![("a".to_owned(), "<i>".to_owned())]),
                    Item::File {
                        title: "spec".to_owned(),
                        text: "</pre><script>".to_owned(),
                    },
                    Item::Findings {
                        subject: "the paper".to_owned(),
                        findings: crate::audit::published(),
                    },
                ],
            }],
        };
        let page = render(&report);
        assert!(!page.contains("<script") && !page.contains("<?xml"));
        assert!(page.contains("1 &amp; 2") && page.contains("a &lt; b"));
        assert!(page.contains("<svg"));
        assert_eq!(
            own_ids("<g id=\"x\" fill=\"url(#x)\"/>", "figure-2"),
            "<g id=\"figure-2-x\" fill=\"url(#figure-2-x)\"/>"
        );
        assert!(page.contains("impossible-f1"));
        // A fold is open on paper, and each is opened by its own heading.
        assert!(!page.contains("<details"));
        let folds = page.matches("class=\"fold ").count();
        assert!(folds > 2);
        for number in 1..=folds {
            assert_eq!(page.matches(&format!("id=\"fold-{number}\"")).count(), 1);
            assert_eq!(page.matches(&format!("for=\"fold-{number}\"")).count(), 1);
        }
        let hides = STYLE.find("display: none; }").unwrap();
        assert!(
            STYLE[..hides].contains("@media screen"),
            "only a screen hides"
        );
        // Nothing is fetched.
        for scheme in ["http://", "https://", "//cdn"] {
            let linked = page.matches(scheme).count();
            let named = page.matches("xmlns=\"http://").count();
            assert_eq!(linked, if scheme == "http://" { named } else { 0 });
        }
    }
}
