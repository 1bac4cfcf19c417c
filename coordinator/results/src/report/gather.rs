//! Collects a report from the database.

use super::{Image, Item, Report, Section, provenance};
use crate::{
    audit,
    drawing::draw,
    figures::{self, DrawError, Figure, FigureError, Request, png},
    statistics::bootstrap::{Drawn, Options},
    tables::{
        Table, against, extra,
        layout::{LAYOUTS, Layout, Rows, Scope},
        load,
    },
};
use halfheard_shared::benchmark::Benchmark;
use halfheard_store::{
    Store, StoreError,
    predictions::{Filter, PredictionsError},
    sweeps::SweepRow,
};
use sqlx::Row as _;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Predictions that cannot be used.
    #[error(transparent)]
    Predictions(#[from] PredictionsError),
    /// The thread that draws died.
    #[error("the bootstrap did not come to an end: {0}")]
    Drawing(#[from] tokio::task::JoinError),
    /// A figure that cannot be drawn.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// A diagram that cannot be drawn.
    #[error(transparent)]
    Diagram(#[from] DrawError),
    /// A figure that cannot be turned into pixels.
    #[error(transparent)]
    Pixels(#[from] png::PngError),
}

impl From<sqlx::Error> for GatherError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Collects everything there is about a sweep. `say` hears what is being done.
///
/// # Errors
///
/// The database's, or predictions that cannot be used.
pub async fn gather(
    store: &Store,
    settings: &figures::Sources<'_>,
    sweep: &SweepRow,
    options: Options,
    say: impl Fn(&str),
) -> Result<Report, GatherError> {
    say("predictions and intervals");
    let predictions = store.predictions(sweep.id, &Filter::default()).await?;
    let drawn = draw(predictions, options).await?;
    say("tables");
    let (overall, details) = tables(store, sweep, &drawn, options).await?;
    let beyond = beyond(store, sweep, &drawn).await?;
    say("figures");
    let figures = drawings(store, settings, sweep).await?;
    say("audit");
    let audits = vec![
        Item::Findings {
            subject: format!("this sweep, {}", sweep.name),
            findings: audit::sweep(store, sweep.id).await?,
        },
        Item::Findings {
            subject: "the published Tables 2 to 14".to_owned(),
            findings: audit::published(),
        },
    ];
    say("provenance");
    let rests_on = rests_on(store, sweep).await?;
    let section = |id, title, items| Section { id, title, items };
    let mut sections = vec![
        section("results", "Results", overall),
        section("beyond", "More than the paper has", beyond),
        section("figures", "Figures", figures),
        section(
            "details",
            "Each missing rate, each set of modalities",
            details,
        ),
        section("audit", "Audit", audits),
        section("provenance", "What it rests on", rests_on),
    ];
    sections.retain(|section| !section.items.is_empty());
    Ok(Report {
        sweep: sweep.name.clone(),
        id: sweep.id.to_string(),
        summary: summary(store, sweep).await?,
        sections,
    })
}

async fn summary(store: &Store, sweep: &SweepRow) -> Result<Vec<String>, GatherError> {
    let row = sqlx::query(
        "SELECT count(DISTINCT (method, variant)) AS models, count(DISTINCT dataset) AS datasets,
                count(DISTINCT seed) AS seeds, count(DISTINCT case_id) AS cases,
                count(*) AS asked, count(*) FILTER (WHERE state = 'done') AS done
         FROM job WHERE sweep = $1 AND kind = 'eval'",
    )
    .bind(sweep.id.0)
    .fetch_one(store.pool())
    .await?;
    let count = |name: &str, one: &str| -> Result<String, sqlx::Error> {
        let count: i64 = row.try_get(name)?;
        let plural = if count == 1 { "" } else { "s" };
        Ok(format!("{count} {one}{plural}"))
    };
    let (done, asked): (i64, i64) = (row.try_get("done")?, row.try_get("asked")?);
    Ok(vec![
        format!(
            "{}, {}, {}, {} of missing data: {done} of {asked} evaluations are done.",
            count("models", "model")?,
            count("datasets", "dataset")?,
            count("seeds", "seed")?,
            count("cases", "case")?
        ),
        format!(
            "Submitted on {} as sweep {}. Accuracies and F1 are in percent. Best values are bold, \
             second best underlined; … is not there yet, – undefined. Published numbers are those \
             of the paper's Tables 2 to 14, with errata (†) corrected where the right value is \
             known.",
            sweep.created.format("%Y-%m-%d %H:%M UTC"),
            sweep.id
        ),
    ])
}

/// The paper's tables: those of means, and those of details.
async fn tables(
    store: &Store,
    sweep: &SweepRow,
    drawn: &Drawn,
    options: Options,
) -> Result<(Vec<Item>, Vec<Item>), GatherError> {
    let (mut overall, mut details) = (Vec::new(), Vec::new());
    for &layout in LAYOUTS {
        let table = table(store, sweep, layout, drawn, options).await?;
        if !worth_printing(&table, layout) {
            continue;
        }
        match layout.scope {
            Scope::Overall => overall.push(Item::Table(table)),
            Scope::Details => details.push(Item::Table(table)),
        }
    }
    if overall.is_empty() && details.is_empty() {
        overall.push(Item::Text("This sweep has no results yet.".to_owned()));
    }
    Ok((overall, details))
}

async fn table(
    store: &Store,
    sweep: &SweepRow,
    layout: Layout,
    drawn: &Drawn,
    options: Options,
) -> Result<Table, GatherError> {
    let mut table = load::load(store, sweep.id, &sweep.name, layout, !layout.spread).await?;
    let values = load::values(store, sweep.id, layout).await?;
    against::published(&mut table, &values, layout);
    if !layout.spread {
        against::drawn(&mut table, drawn, layout, options);
    }
    Ok(table)
}

/// A table of ablations of which a sweep has only the whole model says nothing.
fn worth_printing(table: &Table, layout: Layout) -> bool {
    let rows = || table.blocks.iter().flat_map(|block| &block.rows);
    let any = rows().any(|row| row.cells.iter().flatten().any(|v| v.done > 0));
    let ablates = match layout.rows {
        Rows::Methods => true,
        Rows::Listed if layout.spread => true,
        Rows::Listed | Rows::Weights => rows().any(|row| !row.variant.is_empty()),
    };
    any && ablates
}

/// Laziness, robustness, ranks.
async fn beyond(store: &Store, sweep: &SweepRow, drawn: &Drawn) -> Result<Vec<Item>, GatherError> {
    let mut items = Vec::new();
    let laziness = extra::laziness(store, sweep.id).await?;
    let robustness = extra::robustness_table(drawn);
    let measured = extra::measured(store, sweep.id).await?;
    let ranks = extra::ranks_table(&measured);
    for table in [laziness, robustness, ranks] {
        if !table.blocks.is_empty() {
            items.push(Item::Table(table));
        }
    }
    if let Some(figure) = figures::diagram(&measured)? {
        items.push(Item::Figure(image(figure).await?));
    }
    Ok(items)
}

/// The paper's figures, and a sentence for each that cannot be drawn from this sweep.
async fn drawings(
    store: &Store,
    settings: &figures::Sources<'_>,
    sweep: &SweepRow,
) -> Result<Vec<Item>, GatherError> {
    let mut items = Vec::new();
    let known = store.benchmarks().await?;
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT dataset FROM job WHERE sweep = $1 AND kind = 'train' ORDER BY 1",
    )
    .bind(sweep.id.0)
    .fetch_all(store.pool())
    .await?;
    let own = names.iter().filter_map(|name| known.get(name));
    let own = own.filter(|dataset| matches!(dataset, Benchmark::Own(_)));
    let own = own.map(figures::Kind::Confusion);
    for kind in figures::Kind::PAPER.into_iter().chain(own) {
        let request = Request {
            published: kind == figures::Kind::Curves,
            ..Request::default()
        };
        let drawn = figures::draw(store, settings, sweep.id, kind, &request).await;
        items.push(match drawn {
            Ok(figure) => Item::Figure(image(figure).await?),
            // A sweep need not have what a figure shows.
            Err(
                reason @ (FigureError::Nothing { .. }
                | FigureError::NotInSweep { .. }
                | FigureError::NoFeatures { .. }
                | FigureError::NotLnln(_)),
            ) => Item::Text(format!("Figure {} is not here: {reason}.", kind.id())),
            // The report is of what is at hand, and these are somewhere else.
            Err(
                reason @ (FigureError::Artifacts(_)
                | FigureError::Broker(_)
                | FigureError::Data(_)
                | FigureError::Damaged { .. }),
            ) => {
                tracing::warn!("figure {}: {reason}", kind.id());
                Item::Text(format!("Figure {} is not here: {reason}.", kind.id()))
            }
            Err(other) => return Err(other.into()),
        });
    }
    Ok(items)
}

/// A figure with its pixels and all its words.
async fn image(figure: Figure) -> Result<Image, GatherError> {
    let (name, number) = match figure.kind {
        figures::Kind::Ranks => ("ranks".to_owned(), String::new()),
        figures::Kind::Confusion(Benchmark::Own(_)) | figures::Kind::ConfusionOfOne => {
            // The title names the dataset, and no two have the same name.
            let name = figure.title.rsplit(' ').next().unwrap_or_default();
            (format!("figure-confusion-{name}"), String::new())
        }
        kind => (
            format!("figure-{}", kind.id()),
            format!("Figure {}.", kind.id()),
        ),
    };
    let caption = [&[figure.title, figure.caption], &figure.notes[..]].concat();
    let svg = figure.svg.clone();
    let png = tokio::task::spawn_blocking(move || png::render(&svg, png::SCALE)).await??;
    Ok(Image {
        name,
        number,
        caption: sentences(&caption),
        svg: figure.svg,
        png,
    })
}

/// Each begins with a capital and ends with a full stop.
fn sentences(parts: &[String]) -> String {
    let mut text = String::new();
    for part in parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
    {
        if !text.is_empty() {
            text.push(' ');
        }
        let mut letters = part.chars();
        text.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        text.push_str(letters.as_str());
        if !part.ends_with(['.', '!', '?']) {
            text.push('.');
        }
    }
    text
}

/// What produced it, and the spec.
async fn rests_on(store: &Store, sweep: &SweepRow) -> Result<Vec<Item>, GatherError> {
    let mut facts = vec![
        ("sweep".to_owned(), format!("{} ({})", sweep.name, sweep.id)),
        (
            "written up by".to_owned(),
            format!("coord {}", env!("CARGO_PKG_VERSION")),
        ),
    ];
    facts.extend(provenance::facts(store, sweep.id).await?);
    let spec: String = sqlx::query_scalar("SELECT spec FROM sweep WHERE id = $1")
        .bind(sweep.id.0)
        .fetch_one(store.pool())
        .await?;
    let mut items = vec![Item::Facts(facts)];
    if !spec.trim().is_empty() {
        items.push(Item::File {
            title: "The spec".to_owned(),
            text: spec,
        });
    }
    Ok(items)
}
