//! Line charts as SVG, without style or script: everything is in presentation attributes, and lines differ
//! in width and dashes rather than color.

use halfheard_shared::text::plain;
use maud::{Markup, html};
use std::fmt::Write as _;

/// Size of the drawing in its own units, which the page scales.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;
/// Room for labels around the plot.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Ticks per axis, about.
const TICKS: usize = 5;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Bold: what the page is about.
    Own,
    /// Thin: another seed.
    Other(usize),
    /// Dashed, with squares: the paper.
    Published,
    /// One of several parts, told apart by their dashes.
    Part(usize),
}

/// Dashes of [`Look::Other`] and [`Look::Part`].
const DASHES: [&str; 6] = ["none", "7 3", "2 3", "9 3 2 3", "4 2", "12 4"];

impl Look {
    /// Stroke width, dashes, opacity.
    fn stroke(self) -> (f64, &'static str, f64) {
        match self {
            Look::Own => (2.8, "none", 1.0),
            Look::Other(number) => (1.0, DASHES[number % DASHES.len()], 0.65),
            Look::Published => (1.6, "6 4", 1.0),
            Look::Part(number) => (1.4, DASHES[(number + 1) % DASHES.len()], 0.9),
        }
    }

    /// The class, for a style sheet that adds color.
    fn class(self) -> &'static str {
        match self {
            Look::Own => "own",
            Look::Other(_) => "other",
            Look::Published => "published",
            Look::Part(_) => "part",
        }
    }
}

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Its points from left to right; a value that is missing or not finite is a gap.
    pub(crate) points: Vec<(f64, Option<f64>)>,
    /// How it looks.
    pub(crate) look: Look,
}

/// A point with a ring around it.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// Where.
    pub(crate) at: (f64, f64),
    /// What it is, for the legend.
    pub(crate) text: String,
}

/// A chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// Unique on its page, of letters, digits and hyphens.
    pub(crate) id: String,
    /// The heading.
    pub(crate) title: String,
    /// The label of the horizontal axis.
    pub(crate) x: &'static str,
    /// The label of the vertical axis.
    pub(crate) y: String,
    /// Whether ticks of the horizontal axis are whole numbers.
    pub(crate) whole: bool,
    /// The lines; later ones are drawn above.
    pub(crate) lines: Vec<Line>,
    /// Rings.
    pub(crate) marks: Vec<Mark>,
}

/// From the lowest to the highest value that an axis shows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// What `values` cover, with a margin; `None` without a finite value.
    fn of(values: impl Iterator<Item = f64>, margin: f64) -> Option<Self> {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if low > high {
            return None;
        }
        let span = high - low;
        // A single value stands in the middle.
        let room = match span > 0.0 && span.is_finite() {
            true => span * margin,
            false => (low.abs() * 0.05).max(0.5),
        };
        let (low, high) = (low - room, high + room);
        (low.is_finite() && high.is_finite()).then_some(Self { low, high })
    }

    /// The place of `value`, from 0 to 1.
    fn place(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// Round numbers within a range, and how many decimals they need.
fn ticks(range: Range, whole: bool) -> (Vec<f64>, usize) {
    let rough = (range.high - range.low) / TICKS as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let step = if whole { step.max(1.0).round() } else { step };
    if !step.is_finite() || step <= 0.0 {
        return (Vec::new(), 0);
    }
    let first = (range.low / step).ceil();
    let count = ((range.high / step).floor() - first).clamp(0.0, 20.0) as usize;
    // Multiplied, not summed up: 0.3, not 0.30000000000000004.
    let ticks = (0..=count).map(|number| (first + number as f64) * step);
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    (ticks.filter(|tick| *tick <= range.high).collect(), decimals)
}

/// A tick's text: very large and very small numbers as powers.
fn label(tick: f64, decimals: usize) -> String {
    // The nearest to zero may be negative zero.
    let tick = if tick == 0.0 { 0.0 } else { tick };
    let text = match tick.abs() {
        size if size >= 1e6 || (size > 0.0 && size < 1e-5) => format!("{tick:.1e}"),
        _ => format!("{tick:.decimals$}"),
    };
    text.replace('-', "\u{2212}")
}

/// Where things stand.
struct Frame {
    x: Range,
    y: Range,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// The path of a line, and the points that stand alone between gaps.
    fn path(&self, line: &Line) -> (String, Vec<(f64, f64)>) {
        let mut path = String::new();
        let mut alone = Vec::new();
        let shown = |value: &Option<f64>| value.filter(|value| value.is_finite());
        for run in line
            .points
            .chunk_by(|(_, one), (_, next)| shown(one).is_some() && shown(next).is_some())
        {
            let mut points = run
                .iter()
                .filter_map(|(x, y)| Some((self.x(*x), self.y(shown(y)?))));
            match (points.next(), points.next()) {
                (Some(only), None) => alone.push(only),
                (Some(first), Some(second)) => {
                    // Writing to a String cannot fail.
                    let _ = write!(path, "M{:.1} {:.1}", first.0, first.1);
                    for (x, y) in std::iter::once(second).chain(points) {
                        let _ = write!(path, "L{x:.1} {y:.1}");
                    }
                }
                (None, _) => {}
            }
        }
        (path, alone)
    }
}

impl Chart {
    /// The chart with its legend; a sentence in its place while there is nothing to show.
    pub(crate) fn render(&self) -> Markup {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let shown = points().filter(|(_, y)| y.is_some_and(f64::is_finite));
        let x = Range::of(shown.map(|(x, _)| *x), 0.02);
        let y = Range::of(points().filter_map(|(_, y)| *y), 0.06);
        let (Some(x), Some(y)) = (x, y) else {
            return html! {
                figure class="chart" {
                    figcaption { (plain(&self.title)) }
                    p class="muted" { "Nothing to show yet." }
                }
            };
        };
        let frame = Frame { x, y };
        let (title, desc) = (format!("{}-title", self.id), format!("{}-desc", self.id));
        html! {
            figure class="chart" {
                figcaption { (plain(&self.title)) }
                svg role="img" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } width="100%"
                    aria-labelledby={ (title) " " (desc) } font-size="12" fill="currentColor" {
                    title id=(title) { (plain(&self.title)) }
                    desc id=(desc) { (self.description()) }
                    (self.axes(&frame))
                    @for line in &self.lines { (drawn(line, &frame)) }
                    @for mark in &self.marks {
                        @if mark.at.1.is_finite() {
                            circle class="mark" cx=(round(frame.x(mark.at.0)))
                                cy=(round(frame.y(mark.at.1))) r="6" fill="none"
                                stroke="currentColor" stroke-width="1.6" {}
                        }
                    }
                }
                (self.legend())
            }
        }
    }

    /// What the chart shows, in words.
    fn description(&self) -> String {
        let mut text = format!("{} by {}.", plain(&self.y), self.x);
        for line in &self.lines {
            let values = || {
                line.points
                    .iter()
                    .filter(|(_, y)| y.is_some_and(f64::is_finite))
            };
            let (Some(first), Some(last)) = (values().next(), values().next_back()) else {
                continue;
            };
            let (from, to) = (first.1.unwrap_or_default(), last.1.unwrap_or_default());
            text.push_str(&format!(
                " {}: {from:.3} at {} to {to:.3} at {}.",
                plain(&line.name),
                first.0,
                last.0
            ));
        }
        for mark in &self.marks {
            text.push_str(&format!(" {}: {:.3}.", plain(&mark.text), mark.at.1));
        }
        text
    }

    fn axes(&self, frame: &Frame) -> Markup {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let (across, across_decimals) = ticks(frame.x, self.whole);
        let (up, up_decimals) = ticks(frame.y, false);
        let middle = (TOP + bottom) / 2.0;
        html! {
            g class="axes" stroke="none" aria-hidden="true" {
                @for tick in up {
                    @let y = round(frame.y(tick));
                    line x1=(LEFT) x2=(right) y1=(y) y2=(y) stroke="currentColor"
                        stroke-opacity="0.2" {}
                    text x=(LEFT - 6.0) y=(y) text-anchor="end" dominant-baseline="middle" {
                        (label(tick, up_decimals))
                    }
                }
                @for tick in across {
                    @let x = round(frame.x(tick));
                    line x1=(x) x2=(x) y1=(bottom) y2=(bottom + 4.0) stroke="currentColor" {}
                    text x=(x) y=(bottom + 17.0) text-anchor="middle" { (label(tick, across_decimals)) }
                }
                line x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) stroke="currentColor" {}
                text x=((LEFT + right) / 2.0) y=(HEIGHT - 4.0) text-anchor="middle" { (self.x) }
                text x="12" y=(middle) text-anchor="middle"
                    transform={ "rotate(-90 12 " (middle) ")" } { (plain(&self.y)) }
            }
        }
    }

    fn legend(&self) -> Markup {
        html! {
            ul class="legend" {
                @for line in &self.lines {
                    @let (width, dashes, opacity) = line.look.stroke();
                    li {
                        svg aria-hidden="true" width="32" height="10" viewBox="0 0 32 10" {
                            line class=(line.look.class()) x1="0" x2="32" y1="5" y2="5"
                                stroke="currentColor" stroke-width=(width)
                                stroke-dasharray=(dashes) stroke-opacity=(opacity) {}
                            @if line.look == Look::Published {
                                rect x="13" y="2" width="6" height="6" fill="currentColor" {}
                            }
                        }
                        " " (plain(&line.name))
                    }
                }
                @for mark in &self.marks {
                    li { span aria-hidden="true" { "◯ " } (plain(&mark.text)) }
                }
            }
        }
    }
}

/// To a tenth, which no screen shows.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn drawn(line: &Line, frame: &Frame) -> Markup {
    let (width, dashes, opacity) = line.look.stroke();
    let (path, alone) = frame.path(line);
    let squares = line.points.iter().filter_map(|(x, y)| {
        let y = y.filter(|y| y.is_finite() && line.look == Look::Published)?;
        Some((round(frame.x(*x)), round(frame.y(y))))
    });
    html! {
        g class=(line.look.class()) opacity=(opacity) {
            title { (plain(&line.name)) }
            @if !path.is_empty() {
                path d=(path) fill="none" stroke="currentColor" stroke-width=(width)
                    stroke-dasharray=(dashes) stroke-linejoin="round" {}
            }
            @for (x, y) in alone {
                circle cx=(round(x)) cy=(round(y)) r=(width.max(2.0)) stroke="none" {}
            }
            @for (x, y) in squares {
                rect x=(x - 3.0) y=(y - 3.0) width="6" height="6" stroke="none" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, Option<f64>)>) -> Chart {
        Chart {
            id: "c".to_owned(),
            title: "<Loss>".to_owned(),
            x: "epoch",
            y: "loss".to_owned(),
            whole: true,
            lines: vec![Line {
                name: "seed 1 & more\u{202e}".to_owned(),
                points,
                look: Look::Own,
            }],
            marks: Vec::new(),
        }
    }

    fn labels(low: f64, high: f64, whole: bool) -> Vec<String> {
        let (ticks, decimals) = ticks(Range { low, high }, whole);
        ticks.iter().map(|tick| label(*tick, decimals)).collect()
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(
            labels(0.0, 1.0, false),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(-0.3, 0.31, false), ["\u{2212}0.2", "0.0", "0.2"]);
        assert_eq!(labels(0.98, 4.02, true), ["1", "2", "3", "4"]);
        assert_eq!(labels(1.0, 200.0, true), ["50", "100", "150", "200"]);
        assert_eq!(
            labels(0.1234, 0.1239, false),
            ["0.1234", "0.1236", "0.1238"]
        );
        assert_eq!(labels(-3e7, 9e7, false), ["0", "5.0e7"]);
    }

    #[test]
    fn nothing_to_show_is_said_and_not_drawn() {
        for points in [
            vec![],
            vec![(1.0, None)],
            vec![(1.0, Some(f64::NAN)), (2.0, Some(f64::INFINITY))],
        ] {
            let html = chart(points).render().into_string();
            assert!(
                html.contains("Nothing to show yet") && !html.contains("<svg"),
                "{html}"
            );
        }
    }

    #[test]
    fn single_epoch_is_a_point_in_the_middle() {
        let html = chart(vec![(1.0, Some(0.5))]).render().into_string();
        assert!(!html.contains("<path"), "{html}");
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        assert!(html.contains(&format!("<circle cx=\"{middle}\"")), "{html}");
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }

    #[test]
    fn undefined_values_are_gaps() {
        let points = [
            Some(1.0),
            Some(2.0),
            None,
            Some(f64::NAN),
            Some(3.0),
            Some(2.0),
            None,
        ]
        .into_iter()
        .zip(1..)
        .map(|(y, x)| (f64::from(x), y))
        .collect();
        let html = chart(points).render().into_string();
        let path = html.split("<path d=\"").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 2, "{path}");
        assert!(!html.contains("NaN"), "{html}");
    }

    #[test]
    fn chart_says_in_words_what_it_shows_and_escapes_names() {
        let mut chart = chart(vec![(1.0, Some(0.5)), (2.0, Some(-0.25))]);
        chart.marks.push(Mark {
            at: (2.0, -0.25),
            text: "best".to_owned(),
        });
        let html = chart.render().into_string();
        assert!(
            html.contains("<title id=\"c-title\">&lt;Loss&gt;</title>"),
            "{html}"
        );
        assert!(
            html.contains("seed 1 &amp; more\u{fffd}: 0.500 at 1 to -0.250 at 2. best: -0.250."),
            "{html}"
        );
        assert!(html.contains("class=\"mark\""), "{html}");
        assert!(!html.contains("style="), "the policy forbids it: {html}");
    }

    #[test]
    fn lines_differ_without_color() {
        let looks = [Look::Own, Look::Other(0), Look::Other(1), Look::Published];
        for (number, one) in looks.iter().enumerate() {
            for other in &looks[number + 1..] {
                assert_ne!(one.stroke(), other.stroke());
            }
        }
    }
}
