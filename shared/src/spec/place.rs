//! Places in a spec's text, and the problems found there.

use super::Problem;
use miette::SourceSpan;
use std::{fmt::Display, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Maximum number of problems that are reported one by one.
const MAX_TOLD: usize = 50;

/// A step into the text: a key or a place in a list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Collects problems with their places.
pub(super) struct Checker<'t> {
    text: &'t str,
    tree: Option<Spanned<DeTable<'t>>>,
    problems: Vec<Problem>,
    untold: usize,
}

impl<'t> Checker<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            tree: DeTable::parse(text).ok(),
            problems: Vec::new(),
            untold: 0,
        }
    }

    /// The text as a tree, where it is TOML at all.
    pub(super) fn take_tree(&mut self) -> Option<Spanned<DeTable<'t>>> {
        self.tree.take()
    }

    /// The span of the value at `path`, or the nearest that the text has.
    fn span(&self, path: &[Step<'_>]) -> Option<SourceSpan> {
        let tree = self.tree.as_ref()?;
        let mut table = Some(tree.get_ref());
        let mut value: Option<&Spanned<DeValue<'_>>> = None;
        let mut found: Option<Range<usize>> = None;
        for step in path {
            let next = match step {
                Step::Key(key) => {
                    let table = match value {
                        Some(value) => value.get_ref().as_table(),
                        None => table.take(),
                    };
                    table.and_then(|table| table.get(*key))
                }
                Step::Index(index) => value
                    .and_then(|value| value.get_ref().as_array())
                    .and_then(|array| array.get(*index)),
            };
            match next {
                Some(next) => {
                    found = Some(next.span());
                    value = Some(next);
                }
                None => break,
            }
        }
        found.map(|span| self.shown(span))
    }

    /// The span of the last key of `path`, not its value, or the nearest that the text has.
    fn key_span(&self, path: &[Step<'_>]) -> Option<SourceSpan> {
        let Some((Step::Key(last), above)) = path.split_last() else {
            return self.span(path);
        };
        let mut table = self.tree.as_ref()?.get_ref();
        let mut value: Option<&Spanned<DeValue<'_>>> = None;
        for step in above {
            let next = match (step, value) {
                (Step::Key(key), None) => table.get(*key),
                (Step::Key(key), Some(value)) => value.get_ref().as_table()?.get(*key),
                (Step::Index(index), value) => value?.get_ref().as_array()?.get(*index),
            };
            value = next;
            value?;
        }
        if let Some(value) = value {
            table = value.get_ref().as_table()?;
        }
        let (key, _) = table.iter().find(|(key, _)| key.get_ref() == last)?;
        Some(self.shown(key.span()))
    }

    /// A problem with the name of the last key of `path`.
    pub(super) fn problem_key(
        &mut self,
        path: &[Step<'_>],
        message: impl Display,
        label: impl Display,
        help: Option<String>,
    ) {
        let span = self.key_span(path).or_else(|| self.span(path));
        self.add(Problem {
            message: message.to_string(),
            span,
            label: label.to_string(),
            help,
        });
    }

    /// The text at `span`.
    pub(super) fn text_at(&self, span: Range<usize>) -> &'t str {
        self.text.get(span).unwrap_or_default()
    }

    /// Only the first line of what spans several: a label over a whole table hides its point.
    fn shown(&self, span: Range<usize>) -> SourceSpan {
        let part = self.text.get(span.clone()).unwrap_or_default();
        let line = part.lines().next().unwrap_or_default();
        SourceSpan::from(span.start..span.start + line.len())
    }

    /// A problem with the value at `path`.
    pub(super) fn problem(
        &mut self,
        path: &[Step<'_>],
        message: impl Display,
        label: impl Display,
        help: Option<String>,
    ) {
        let span = self.span(path);
        self.add(Problem {
            message: message.to_string(),
            span,
            label: label.to_string(),
            help,
        });
    }

    /// A problem with the text at `span`.
    pub(super) fn problem_at(
        &mut self,
        span: Range<usize>,
        message: String,
        label: &str,
        help: Option<String>,
    ) {
        let span = Some(self.shown(span));
        self.add(Problem {
            message,
            span,
            label: label.to_owned(),
            help,
        });
    }

    fn add(&mut self, problem: Problem) {
        if self.problems.contains(&problem) {
            return; // a setting of several variants is reported once
        }
        if self.problems.len() < MAX_TOLD {
            self.problems.push(problem);
        } else {
            self.untold += 1;
        }
    }

    /// A problem that may have been reported already: then it stands at the same place, or both say
    /// that something is missing.
    pub(super) fn add_unless_reported(&mut self, problem: Problem) {
        let missing = |p: &Problem| p.message.starts_with("missing field");
        let reported = self.problems.iter().any(|reported| {
            reported.span == problem.span || (missing(reported) && missing(&problem))
        });
        if !reported {
            self.add(problem);
        }
    }

    /// Whether nothing was wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems; the last one counts those that are too many to tell.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        if self.untold > 0 {
            self.problems.push(Problem {
                message: format!("{} more things are wrong", self.untold),
                span: None,
                label: String::new(),
                help: Some("put these right first".to_owned()),
            });
        }
        self.problems
    }
}
