//! The report as one HTML page that needs nothing else: style and drawings are in it, and no script.

use super::{Image, Item, Report};
use crate::{
    audit::{Finding, render::Counts},
    tables::render::{Format, render as render_table},
};
use html_escape::{encode_double_quoted_attribute, encode_text};
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");

/// Makes the page.
pub fn render(report: &Report) -> String {
    let mut out = String::with_capacity(1 << 20);
    let title = encode_text(&report.sweep);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; img-src data:\">\n\
         <title>halfheard: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>halfheard: {title}</h1>\n"
    );
    for sentence in &report.summary {
        let _ = writeln!(out, "<p>{}</p>", encode_text(sentence));
    }
    out.push_str("<nav><ul>\n");
    for section in &report.sections {
        let _ = writeln!(
            out,
            "<li><a href=\"#{}\">{}</a></li>",
            section.id, section.title
        );
    }
    out.push_str("</ul></nav></header>\n<main>\n");
    let mut folded = 0;
    for section in &report.sections {
        let _ = writeln!(
            out,
            "<section id=\"{}\">\n<h2>{}</h2>",
            section.id, section.title
        );
        for item in &section.items {
            write_item(&mut out, item, &mut folded);
        }
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// What is folded away on a screen, until its heading is clicked, and stands in full on paper: a
/// closed `<details>` would be printed without what is in it. `number` tells the folds of a page
/// apart.
fn fold(out: &mut String, class: &str, heading: &str, body: &str, number: &mut usize) {
    *number += 1;
    let _ = writeln!(
        out,
        "<div class=\"fold {class}\"><input type=\"checkbox\" id=\"fold-{number}\">\
         <label for=\"fold-{number}\">{heading}</label>\n<div class=\"folded\">\n{body}</div></div>"
    );
}

fn write_item(out: &mut String, item: &Item, folded: &mut usize) {
    match item {
        Item::Text(text) => {
            let _ = writeln!(out, "<p>{}</p>", encode_text(text));
        }
        Item::Table(table) => out.push_str(&render_table(table, Format::Html, false)),
        Item::Figure(image) => figure(out, image),
        Item::Findings { subject, findings } => {
            let counts = Counts::of(findings).text();
            let _ = writeln!(
                out,
                "<h3>Audit of {}</h3>\n<p>{}.</p>",
                encode_text(subject),
                encode_text(&counts)
            );
            for finding in findings {
                write_finding(out, finding, folded);
            }
        }
        Item::Facts(facts) => {
            out.push_str("<dl>\n");
            for (name, value) in facts {
                let (name, value) = (encode_text(name), encode_text(value));
                let _ = writeln!(out, "<dt>{name}</dt><dd>{value}</dd>");
            }
            out.push_str("</dl>\n");
        }
        Item::File { title, text } => {
            let body = format!("<pre>{}</pre>\n", encode_text(text));
            fold(out, "file", &encode_text(title), &body, folded);
        }
    }
}

fn figure(out: &mut String, image: &Image) {
    // Without the XML declaration, which has no place inside HTML.
    let start = image.svg.find("<svg").unwrap_or(0);
    let _ = writeln!(
        out,
        "<figure class=\"drawing\" role=\"img\" aria-label=\"{}\">\n{}\n\
         <figcaption><b>{}</b> {}</figcaption>\n</figure>",
        encode_double_quoted_attribute(&image.caption),
        own_ids(&image.svg[start..], &image.name),
        encode_text(&image.number),
        encode_text(&image.caption)
    );
}

/// Several drawings on one page must not share the names of their parts.
fn own_ids(svg: &str, name: &str) -> String {
    svg.replace("id=\"", &format!("id=\"{name}-"))
        .replace("url(#", &format!("url(#{name}-"))
        .replace("href=\"#", &format!("href=\"#{name}-"))
}

fn write_finding(out: &mut String, finding: &Finding, folded: &mut usize) {
    let severity = finding.severity.id();
    let heading = format!(
        "<span>{severity}</span> <code>{}</code> {}",
        finding.rule.id(),
        encode_text(&finding.place()),
    );
    let mut body = format!("<p>{}</p>\n<ul>\n", encode_text(&finding.what));
    for line in &finding.numbers {
        let _ = writeln!(body, "<li>{}</li>", encode_text(line));
    }
    body.push_str("</ul>\n");
    match &finding.known {
        Some(errata) if errata.is_empty() => body.push_str("<p>Not in the errata.</p>\n"),
        Some(errata) => {
            let _ = writeln!(body, "<p>Known: {}</p>", encode_text(&errata.join("; ")));
        }
        None => {}
    }
    let why = encode_text(finding.rule.why());
    let _ = writeln!(body, "<p>Why it matters: {why}.</p>");
    fold(out, &format!("finding {severity}"), &heading, &body, folded);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{figures, report::Section};

    #[test]
    fn the_page_is_whole_and_nothing_in_it_is_taken_for_markup() {
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
        // What is folded on a screen is there on paper, and each fold is opened by its own heading.
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
