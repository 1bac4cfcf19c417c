//! Prints findings as text, Markdown or JSON.

use super::{Finding, Rule, Severity};
use std::fmt::Write as _;

/// The format of printed findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal
    Text,
    /// Markdown: a list by severity
    Markdown,
    /// Every finding with all its places
    Json,
}

/// The most lines of evidence of a finding in text and Markdown.
const LINES: usize = 8;
/// The width of text.
const WIDTH: usize = 100;

/// The number of findings by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Errors.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
    /// Notes.
    pub notes: usize,
    /// Findings about a known erratum; `None` for a sweep.
    pub known: Option<usize>,
}

impl Counts {
    /// Counts findings.
    pub fn of(findings: &[Finding]) -> Self {
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        let compared = findings.iter().any(|f| f.known.is_some());
        let known = |f: &&Finding| f.known.as_ref().is_some_and(|errata| !errata.is_empty());
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            known: compared.then(|| findings.iter().filter(known).count()),
        }
    }

    /// The counts in words.
    pub fn text(&self) -> String {
        let number = |count: usize, one: &str| match count {
            0 => format!("no {one}s"),
            1 => format!("1 {one}"),
            n => format!("{n} {one}s"),
        };
        let mut text = format!(
            "{}, {}, {}",
            number(self.errors, "error"),
            number(self.warnings, "warning"),
            number(self.notes, "note")
        );
        if let Some(known) = self.known {
            let all = self.errors + self.warnings + self.notes;
            let _ = write!(
                text,
                "; {known} of {all} match a known erratum, {} do not",
                all - known
            );
        }
        text
    }
}

/// Prints the findings about `subject`. `color` only affects text.
pub fn render(subject: &str, findings: &[Finding], format: Format, color: bool) -> String {
    match format {
        Format::Text => text(subject, findings, color),
        Format::Markdown => markdown(subject, findings),
        Format::Json => json(subject, findings),
    }
}

fn text(subject: &str, findings: &[Finding], color: bool) -> String {
    let mut out = format!("Audit of {subject}\n");
    let paint = |code: &str, text: &str| {
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    for finding in findings {
        let code = match finding.severity {
            Severity::Error => "31;1",
            Severity::Warning => "33;1",
            Severity::Note => "36",
        };
        let _ = write!(
            out,
            "\n{} {}: {}\n",
            paint(code, finding.severity.id()),
            paint("1", finding.rule.id()),
            finding.place()
        );
        wrapped(&mut out, &finding.what);
        for line in shown(&finding.numbers) {
            wrapped(&mut out, &line);
        }
        for line in rest(finding) {
            wrapped(&mut out, &line);
        }
        wrapped(&mut out, &format!("why it matters: {}", finding.rule.why()));
    }
    let _ = write!(out, "\n{}\n", Counts::of(findings).text());
    out
}

/// A paragraph indented by two; its further lines by four.
fn wrapped(out: &mut String, text: &str) {
    let mut line = String::from("  ");
    for word in text.split(' ') {
        let started = !line.trim().is_empty();
        if started && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = "    ".to_owned();
        } else if started {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// The lines of evidence that are printed.
fn shown(numbers: &[String]) -> Vec<String> {
    if numbers.len() <= LINES {
        return numbers.to_vec();
    }
    let mut lines = numbers[..LINES - 1].to_vec();
    lines.push(format!(
        "and {} more (--format json has all)",
        numbers.len() - lines.len()
    ));
    lines
}

/// Dependent numbers and known errata.
fn rest(finding: &Finding) -> Vec<String> {
    let mut lines = Vec::new();
    if !finding.carried.is_empty() {
        lines.push(format!(
            "affects: {}",
            super::cell::summary(&finding.carried)
        ));
    }
    match finding.known.as_deref() {
        None => {}
        Some([]) => lines.push("not in the errata".to_owned()),
        Some(errata) => lines.extend(errata.iter().map(|e| format!("known erratum: {e}"))),
    }
    lines
}

fn markdown(subject: &str, findings: &[Finding]) -> String {
    let mut out = format!("**Audit of {subject}**: {}\n", Counts::of(findings).text());
    for (severity, heading) in [
        (Severity::Error, "Errors: cannot be right"),
        (Severity::Warning, "Warnings: probably wrong, or doubtful"),
        (Severity::Note, "Notes"),
    ] {
        let mut of_severity = findings
            .iter()
            .filter(|f| f.severity == severity)
            .peekable();
        if of_severity.peek().is_none() {
            continue;
        }
        let _ = write!(out, "\n### {heading}\n\n");
        for finding in of_severity {
            let _ = writeln!(
                out,
                "- **{}** (`{}`): {}",
                finding.place(),
                finding.rule.id(),
                finding.what
            );
            for line in shown(&finding.numbers).iter().chain(&rest(finding)) {
                let _ = writeln!(out, "  - {}", escaped(line));
            }
        }
    }
    let rules: Vec<Rule> = Rule::ALL
        .iter()
        .copied()
        .filter(|rule| findings.iter().any(|finding| finding.rule == *rule))
        .collect();
    if !rules.is_empty() {
        out.push_str("\n### Why it matters\n\n");
        for rule in rules {
            let _ = writeln!(out, "- `{}`: {}", rule.id(), rule.why());
        }
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('*', "\\*")
        .replace('_', "\\_")
}

fn json(subject: &str, findings: &[Finding]) -> String {
    let findings_json: Vec<serde_json::Value> = findings
        .iter()
        .map(|finding| {
            let mut value = serde_json::json!(finding);
            if let Some(object) = value.as_object_mut() {
                object.insert("place".to_owned(), finding.place().into());
                object.insert("why".to_owned(), finding.rule.why().into());
            }
            value
        })
        .collect();
    let whole = serde_json::json!({
        "subject": subject,
        "counts": Counts::of(findings),
        "findings": findings_json,
    });
    format!("{whole:#}\n")
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};

    fn finding() -> Finding {
        let mut finding = Finding::new(
            Rule::Trend,
            Severity::Warning,
            "the value breaks the line of its neighbors",
            vec![cell(9, "lnln", "acc5", "r=0.7", 0.5).place],
            (0..12).map(|i| format!("number {i}")).collect(),
        );
        finding.known = Some(Vec::new());
        finding
    }

    #[test]
    fn text_has_place_evidence_reason_and_errata() {
        let out = render("x", &[finding()], Format::Text, false);
        for part in [
            "warning trend: Table 9, MOSI, LNLN, Acc-5, r=0.7",
            "breaks the line",
            "number 6",
            "and 5 more",
            "not in the errata",
            "why it matters: a misprint",
            "no errors, 1 warning, no notes; 0 of 1 match a known erratum, 1 do not",
        ] {
            assert!(out.contains(part), "{part}\n{out}");
        }
        assert!(!out.contains('\x1b'));
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(render("x", &[finding()], Format::Text, true).contains('\x1b'));
    }

    #[test]
    fn json_has_all_evidence_and_markdown_a_list() {
        let out = render("x", &[finding()], Format::Json, true);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            value["findings"][0]["numbers"].as_array().unwrap().len(),
            12
        );
        assert_eq!(value["findings"][0]["rule"], "trend");
        assert_eq!(value["counts"]["warnings"], 1);
        let out = render("x", &[finding()], Format::Markdown, true);
        assert!(out.contains("### Warnings"), "{out}");
        assert!(out.contains("\n- **Table 9, MOSI, LNLN, Acc-5, r=0.7** (`trend`)"));
    }
}
