//! What follows from a definition: metrics, selection criteria, classes.

use super::{Criterion, Metric, definition::Definition, definition::Rule};

/// What a protocol's metrics are computed by.
#[derive(Debug)]
pub struct Rules {
    /// The definition that the rules follow from.
    pub definition: Definition,
    /// The definition in one canonical text, by which protocols are distinguished.
    pub(super) text: String,
    /// In the order of the paper's tables; those it does not print come last.
    pub metrics: Vec<Metric>,
    /// Fewest classes first.
    pub criteria: Vec<Criterion>,
    /// The accuracies of three and more classes, most classes first.
    pub scales: Vec<Scale>,
    /// The accuracies of two classes.
    pub binaries: Vec<Binary>,
    /// The classes that confusion matrices, label counts and laziness go by: the most there are.
    pub fine: Scale,
}

/// Classes, and the accuracy of telling them apart.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The accuracy's id: `acc5`.
    pub accuracy: &'static str,
    /// The names of the classes, lowest first.
    pub names: Vec<&'static str>,
    bins: Bins,
}

#[derive(Clone, Debug)]
enum Bins {
    /// Whole numbers from the first to the last, half to even.
    Rounded(f32, f32),
    /// By edges, each of which belongs to the class below it.
    Edges(Vec<f32>),
    /// Below this, or not.
    AtLeast(f32),
}

impl Scale {
    /// How many classes there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Whether a right answer among these classes is a right one among `coarse`, too.
    pub fn refines(&self, coarse: &Scale) -> bool {
        match (&self.bins, &coarse.bins) {
            (Bins::Rounded(..), Bins::Rounded(..)) => self.count() >= coarse.count(),
            (Bins::Edges(fine), Bins::Edges(coarse)) => {
                coarse.iter().all(|edge| fine.contains(edge))
            }
            _ => false,
        }
    }

    /// The class of a value, lowest first, in single precision as the reference compares.
    pub fn of(&self, value: f32) -> usize {
        match &self.bins {
            // Clipped first: what is beyond the range is of the outermost class.
            Bins::Rounded(low, high) => (value.clamp(*low, *high).round_ties_even() - low) as usize,
            Bins::Edges(edges) => edges.iter().filter(|&&edge| value > edge).count(),
            Bins::AtLeast(edge) => usize::from(value >= *edge),
        }
    }
}

/// A two-class accuracy, and the F1 of the same answers.
#[derive(Clone, Copy, Debug)]
pub struct Binary {
    /// The accuracy's id.
    pub accuracy: &'static str,
    /// The F1's id.
    pub f1: &'static str,
    /// The id of the F1 with truth and prediction swapped.
    pub swapped: &'static str,
    edge: f32,
    cut: Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Above the edge is positive; labels on it are excluded.
    WithoutEdge,
    /// Not below the edge is positive.
    AtLeast,
    /// Above the edge is positive.
    Above,
}

impl Binary {
    /// Whether samples of this label take part.
    pub fn counts(&self, label: f32) -> bool {
        self.cut != Cut::WithoutEdge || label != self.edge
    }

    /// Whether a prediction or label is of the positive class.
    pub fn positive(&self, value: f32) -> bool {
        match self.cut {
            Cut::AtLeast => value >= self.edge,
            Cut::Above | Cut::WithoutEdge => value > self.edge,
        }
    }
}

/// Leaks a text: there are as many as protocols.
fn kept(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

impl Rules {
    /// What follows from a definition that has been checked.
    pub(super) fn of(definition: Definition, text: String) -> Self {
        let scales: Vec<Scale> = definition
            .classes
            .iter()
            .rev()
            .filter(|classes| classes.count > 2)
            .map(|classes| scale(&definition, classes.count, &classes.edges))
            .collect();
        let two = definition.classes.iter().find(|classes| classes.count == 2);
        let binaries = two.map_or_else(Vec::new, |two| binaries(&definition, &two.edges));
        let fine = scales
            .first()
            .cloned()
            .unwrap_or_else(|| of_two(&definition, &binaries));
        Self {
            metrics: metrics(&scales, &binaries),
            criteria: criteria(&scales, &binaries, &fine),
            definition,
            text,
            scales,
            binaries,
            fine,
        }
    }

    /// Whether values are clipped to the range before anything is measured, as on SIMS.
    pub fn clips(&self) -> bool {
        self.definition.rule == Rule::Intervals
    }

    /// A value as it is measured: clipped to the range where the protocol does so.
    pub fn clip(&self, value: f32) -> f32 {
        if self.clips() {
            let [low, high] = self.definition.label_range;
            value.clamp(low as f32, high as f32)
        } else {
            value
        }
    }

    /// The scale of the accuracy called `id`, if it has more than two classes.
    pub fn scale(&self, id: &str) -> Option<&Scale> {
        self.scales.iter().find(|scale| scale.accuracy == id)
    }
}

/// The middle of the range, where labels are neither positive nor negative.
pub(super) fn neutral(definition: &Definition) -> f32 {
    let [low, high] = definition.label_range;
    f64::midpoint(low, high) as f32
}

fn scale(definition: &Definition, count: u32, edges: &[f64]) -> Scale {
    let accuracy = kept(format!("acc{count}"));
    if definition.rule == Rule::Rounded {
        let [low, high] = definition.label_range;
        let first = f64::midpoint(low, high) - f64::from(count - 1) / 2.0;
        let last = first + f64::from(count - 1);
        let names = (0..count).map(|i| kept(format!("{}", first + f64::from(i))));
        return Scale {
            accuracy,
            names: names.collect(),
            bins: Bins::Rounded(first as f32, last as f32),
        };
    }
    Scale {
        accuracy,
        names: interval_names(definition, edges),
        bins: Bins::Edges(edges.iter().map(|&edge| edge as f32).collect()),
    }
}

/// SIMS' class names if the edges are its own, scaled; otherwise the edges.
fn interval_names(definition: &Definition, edges: &[f64]) -> Vec<&'static str> {
    let [low, high] = definition.label_range;
    let (middle, half) = (f64::midpoint(low, high), (high - low) / 2.0);
    let usual = |of: &[f64]| {
        let mut scaled = of.iter().map(|edge| middle + half * edge);
        of.len() == edges.len() && edges.iter().all(|edge| scaled.next() == Some(*edge))
    };
    if usual(&[0.0]) {
        return vec!["negative", "positive"];
    }
    if usual(&[-0.1, 0.1]) {
        return vec!["negative", "neutral", "positive"];
    }
    if usual(&[-0.7, -0.1, 0.1, 0.7]) {
        return vec![
            "negative",
            "weakly negative",
            "neutral",
            "weakly positive",
            "positive",
        ];
    }
    (0..=edges.len())
        .map(|i| {
            kept(match (i.checked_sub(1), edges.get(i)) {
                (None, Some(to)) => format!("to {to}"),
                (Some(from), Some(to)) => format!("{} to {to}", edges[from]),
                (Some(from), None) => format!("over {}", edges[from]),
                (None, None) => "all".to_owned(),
            })
        })
        .collect()
}

fn binaries(definition: &Definition, edges: &[f64]) -> Vec<Binary> {
    let neutral = neutral(definition);
    match definition.rule {
        Rule::Rounded => vec![
            Binary {
                accuracy: "acc2_nonzero",
                f1: "f1_nonzero",
                swapped: "f1_nonzero_swapped",
                edge: neutral,
                cut: Cut::WithoutEdge,
            },
            Binary {
                accuracy: "acc2_nonneg",
                f1: "f1_nonneg",
                swapped: "f1_nonneg_swapped",
                edge: neutral,
                cut: Cut::AtLeast,
            },
        ],
        Rule::Intervals => vec![Binary {
            accuracy: "acc2",
            f1: "f1",
            swapped: "f1_swapped",
            edge: edges.first().map_or(neutral, |&edge| edge as f32),
            cut: Cut::Above,
        }],
    }
}

/// Two classes, if no accuracy has more.
fn of_two(definition: &Definition, binaries: &[Binary]) -> Scale {
    let bins = match binaries.last() {
        Some(binary) if binary.cut == Cut::Above => Bins::Edges(vec![binary.edge]),
        _ => Bins::AtLeast(neutral(definition)),
    };
    let lower = match bins {
        Bins::Edges(_) => "not positive",
        _ => "negative",
    };
    let upper = match bins {
        Bins::Edges(_) => "positive",
        _ => "not negative",
    };
    Scale {
        accuracy: binaries.last().map_or("acc2", |binary| binary.accuracy),
        names: vec![lower, upper],
        bins,
    }
}

fn metric(id: &'static str, name: &'static str, higher_is_better: bool, percent: bool) -> Metric {
    Metric {
        id,
        name,
        higher_is_better,
        percent,
    }
}

/// `(neg/pos)` behind the names of the first of two conventions, `(neg/non-neg)` of the second.
fn binary_name(what: &str, binary: &Binary) -> &'static str {
    kept(match binary.cut {
        Cut::WithoutEdge => format!("{what} (neg/pos)"),
        Cut::AtLeast => format!("{what} (neg/non-neg)"),
        Cut::Above => what.to_owned(),
    })
}

fn metrics(scales: &[Scale], binaries: &[Binary]) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = scales
        .iter()
        .map(|scale| {
            let name = kept(format!("Acc-{}", scale.count()));
            metric(scale.accuracy, name, true, true)
        })
        .collect();
    let named = |of: fn(&Binary) -> &'static str, what: &'static str| {
        binaries
            .iter()
            .map(move |binary| metric(of(binary), binary_name(what, binary), true, true))
    };
    metrics.extend(named(|binary| binary.accuracy, "Acc-2"));
    metrics.extend(named(|binary| binary.f1, "F1"));
    metrics.push(metric("mae", "MAE", false, false));
    metrics.push(metric("corr", "Corr", true, false));
    metrics.extend(named(|binary| binary.swapped, "F1 swapped"));
    metrics.push(metric("laziness", "Laziness", false, true));
    metrics
}

fn criteria(scales: &[Scale], binaries: &[Binary], fine: &Scale) -> Vec<Criterion> {
    let criterion = |id: &'static str, higher_is_better, others: &[&'static str]| {
        let mut family = vec![id];
        family.extend(others);
        // The rarest class says most of a lazy model: laziness goes with the most classes.
        if id == fine.accuracy {
            family.push("laziness");
        }
        Criterion {
            id,
            higher_is_better,
            family: Box::leak(family.into_boxed_slice()),
        }
    };
    let of_two = binaries
        .iter()
        .map(|binary| criterion(binary.accuracy, true, &[binary.f1, binary.swapped]));
    let of_more = scales.iter().rev();
    let of_more = of_more.map(|scale| criterion(scale.accuracy, true, &[]));
    of_two
        .chain(of_more)
        .chain([criterion("mae", false, &["corr"])])
        .collect()
}
