//! Learning curves: losses and metrics on the selection split by epoch, beside those of other seeds.

use super::{
    chart::{Chart, Line, Look, Mark},
    known::{Known, metric_title, printed, scaled},
};
use halfheard_shared::text::plain;
use halfheard_store::trainings::EpochRow;
use maud::{Markup, html};
use std::collections::BTreeSet;

/// The name of the total among the losses.
const TOTAL: &str = "loss";

pub(super) fn section(known: &Known) -> Markup {
    let own = known.own_epochs();
    if own.is_empty() {
        return html! {
            section aria-labelledby="curves" {
                h2 id="curves" { "Learning curves" }
                p class="muted" { "No epoch is completed yet." }
            }
        };
    }
    let metrics = metrics(known);
    let (main, further): (Vec<&str>, Vec<&str>) = metrics.iter().partition(|id| is_main(known, id));
    html! {
        section aria-labelledby="curves" {
            h2 id="curves" { "Learning curves" }
            p {
                "This seed is the bold line, other seeds are thin. A ring marks the epoch whose weights \
                 were kept. Metrics are those on the split that checkpoints are selected on."
            }
            div class="charts" {
                (total(known).render())
                @for id in main { (metric(known, id).render()) }
            }
            @if !further.is_empty() || names(own, |row| &row.losses).len() > 1 {
                details id="further-curves" {
                    summary { "Parts of the loss, further metrics" }
                    div class="charts" {
                        (parts(known).render())
                        @for id in further { (metric(known, id).render()) }
                    }
                }
            }
            details id="epochs" {
                summary { "The numbers by epoch" }
                (table(known, &metrics))
            }
        }
    }
}

/// The names that occur in some epoch.
fn names<'a, T: 'a>(
    epochs: &'a [EpochRow],
    of: impl Fn(&'a EpochRow) -> &'a std::collections::BTreeMap<String, T>,
) -> BTreeSet<&'a str> {
    let names = epochs.iter().flat_map(|row| of(row).keys());
    names.map(String::as_str).collect()
}

/// The metrics of the epochs: those of tables in their order, then others.
fn metrics(known: &Known) -> Vec<&str> {
    let mut left = names(known.own_epochs(), |row| &row.metrics);
    let listed = known.dataset.map_or(&[][..], |dataset| dataset.metrics());
    let mut metrics: Vec<&str> = Vec::new();
    for metric in listed {
        metrics.extend(left.take(metric.id));
    }
    metrics.extend(left);
    metrics
}

/// Whether checkpoints are selected by it, or schedules follow it.
fn is_main(known: &Known, id: &str) -> bool {
    let criterion = known.dataset.and_then(|dataset| dataset.criterion(id));
    criterion.is_some() || id == "validation_loss"
}

/// One line per seed of what `value` reads from an epoch, this seed last and so above the others.
fn lines(known: &Known, value: impl Fn(&EpochRow) -> Option<f64>) -> Vec<Line> {
    let points = |rows: &[EpochRow]| {
        rows.iter()
            .map(|row| (row.epoch.into(), value(row)))
            .collect()
    };
    let mut lines: Vec<Line> = Vec::new();
    for (number, sibling) in known.siblings.iter().enumerate() {
        if let Some(rows) = known.epochs.get(&sibling.job) {
            lines.push(Line {
                name: format!("seed {}", sibling.seed),
                points: points(rows),
                look: Look::Other(number),
            });
        }
    }
    lines.push(Line {
        name: format!("seed {} (this one)", known.training.seed),
        points: points(known.own_epochs()),
        look: Look::Own,
    });
    lines
}

fn chart(id: String, title: String, y: String, lines: Vec<Line>, marks: Vec<Mark>) -> Chart {
    Chart {
        id,
        title,
        x: "epoch",
        y,
        whole: true,
        lines,
        marks,
    }
}

fn total(known: &Known) -> Chart {
    let lines = lines(known, |row| row.losses.get(TOTAL).copied().flatten());
    let title = "Training loss".to_owned();
    chart(
        "loss".to_owned(),
        title,
        TOTAL.to_owned(),
        lines,
        Vec::new(),
    )
}

/// The parts of the loss, of this seed alone.
fn parts(known: &Known) -> Chart {
    let own = known.own_epochs();
    let names = names(own, |row| &row.losses).into_iter();
    let lines = names.filter(|name| *name != TOTAL).enumerate();
    let lines = lines.map(|(number, name)| Line {
        name: plain(name),
        points: own
            .iter()
            .map(|row| (row.epoch.into(), row.losses.get(name).copied().flatten()))
            .collect(),
        look: Look::Part(number),
    });
    let title = "Parts of the training loss".to_owned();
    chart(
        "parts".to_owned(),
        title,
        TOTAL.to_owned(),
        lines.collect(),
        Vec::new(),
    )
}

fn metric(known: &Known, id: &str) -> Chart {
    let metric = known.metric(id);
    let value = |row: &EpochRow| scaled(row.metrics.get(id).copied().flatten(), metric);
    let best = known
        .own_epochs()
        .iter()
        .rev()
        .find(|row| row.best_for.iter().any(|best| best == id));
    let marks = best.and_then(|row| {
        Some(Mark {
            at: (row.epoch.into(), value(row)?),
            text: format!("kept: epoch {}", row.epoch),
        })
    });
    let title = metric_title(id, metric);
    let anchor = id.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    chart(
        format!("metric-{anchor}"),
        title.clone(),
        title,
        lines(known, value),
        marks.into_iter().collect(),
    )
}

fn table(known: &Known, metrics: &[&str]) -> Markup {
    let own = known.own_epochs();
    let losses = names(own, |row| &row.losses);
    html! {
        div class="scroll" {
            table {
                caption { "Losses, metrics and seconds of each epoch." }
                thead {
                    tr {
                        th scope="col" { "Epoch" }
                        @for name in &losses { th scope="col" { (plain(name)) } }
                        @for id in metrics { th scope="col" { (metric_title(id, known.metric(id))) } }
                        th scope="col" { "Training, s" }
                        th scope="col" { "Evaluation, s" }
                        th scope="col" { "Best for" }
                    }
                }
                tbody {
                    @for row in own {
                        tr {
                            th scope="row" { (row.epoch) }
                            @for name in &losses {
                                td {
                                    @match row.losses.get(*name).copied().flatten() {
                                        Some(loss) => (format!("{loss:.4}")),
                                        None => "–",
                                    }
                                }
                            }
                            @for id in metrics {
                                td { (printed(row.metrics.get(*id).copied().flatten(), known.metric(id))) }
                            }
                            td { (format!("{:.1}", row.train_seconds)) }
                            td { (format!("{:.1}", row.eval_seconds)) }
                            td { (plain(&row.best_for.join(", "))) }
                        }
                    }
                }
            }
        }
    }
}
