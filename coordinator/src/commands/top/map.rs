//! A sweep as a map: models by datasets and seeds.

use super::text::{fit, window};
use halfheard_shared::text::plain;
use halfheard_store::{JobState, live::MapCell};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

/// The columns that a cell takes.
pub(crate) const CELL: usize = 8;

/// The symbol of a job's state, as on the page.
pub(crate) fn symbol(state: JobState) -> char {
    match state {
        JobState::Blocked => '·',
        JobState::Ready => '○',
        JobState::Queued => '◔',
        JobState::Running => '▶',
        JobState::Done => '✓',
        JobState::Failed => '✗',
        JobState::Cancelled => '–',
    }
}

/// What the symbols mean, on one line.
pub(crate) fn legend() -> String {
    let states = [
        JobState::Ready,
        JobState::Queued,
        JobState::Running,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ];
    let words: Vec<String> = states
        .into_iter()
        .map(|state| format!("{} {state}", symbol(state)))
        .collect();
    words.join("  ")
}

/// The state of a training job together with the evaluations of its model.
pub(crate) fn state(cell: &MapCell) -> JobState {
    match cell.training {
        JobState::Done if cell.failed > 0 => JobState::Failed,
        JobState::Done if cell.done == cell.expected => JobState::Done,
        JobState::Done if cell.evaluating > 0 => JobState::Running,
        JobState::Done => JobState::Ready,
        training => training,
    }
}

/// A cell in at most [`CELL`] characters: its state, and how far it is or, once it is done, its number.
pub(crate) fn short(cell: &MapCell) -> String {
    let state = state(cell);
    let rest = match (state, cell.training) {
        (JobState::Done, _) => cell.value.map(|value| format!("{value:.3}")),
        (JobState::Running | JobState::Ready | JobState::Failed, JobState::Done) => {
            Some(format!("{}/{}", cell.done, cell.expected))
        }
        (JobState::Running, _) => cell.epoch.map(|epoch| format!("e{epoch}")),
        _ => None,
    };
    let text = format!("{}{}", symbol(state), rest.unwrap_or_default());
    text.chars().take(CELL - 1).collect()
}

/// The cells of a sweep in rows and columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    /// Models.
    pub(crate) rows: Vec<String>,
    /// Datasets and seeds.
    pub(crate) columns: Vec<(String, i64)>,
    cells: HashMap<(usize, usize), MapCell>,
}

impl Map {
    /// Arranges cells that are ordered by dataset, model and seed.
    pub(crate) fn new(cells: Vec<MapCell>) -> Self {
        let mut map = Self::default();
        let mut columns: BTreeMap<(String, i64), usize> = BTreeMap::new();
        for cell in &cells {
            columns.insert((plain(&cell.dataset), cell.seed), 0);
        }
        for (index, place) in columns.values_mut().enumerate() {
            *place = index;
        }
        map.columns = columns.keys().cloned().collect();
        let mut rows: HashMap<String, usize> = HashMap::new();
        for cell in cells {
            let model = match cell.variant.as_str() {
                "" => plain(&cell.method),
                variant => plain(&format!("{}/{variant}", cell.method)),
            };
            let column = columns[&(plain(&cell.dataset), cell.seed)];
            // One method may be trained under several protocols.
            let name = (1..)
                .map(|number| match number {
                    1 => model.clone(),
                    number => format!("{model} #{number}"),
                })
                .find(|name| {
                    let row = rows.get(name);
                    row.is_none_or(|row| !map.cells.contains_key(&(*row, column)))
                })
                .unwrap_or_default();
            let row = *rows.entry(name.clone()).or_insert_with(|| {
                map.rows.push(name);
                map.rows.len() - 1
            });
            map.cells.insert((row, column), cell);
        }
        map
    }

    /// The cell of a model on a dataset with a seed.
    pub(crate) fn cell(&self, row: usize, column: usize) -> Option<&MapCell> {
        self.cells.get(&(row, column))
    }

    /// Whether a column is the first of its dataset.
    fn begins_dataset(&self, column: usize) -> bool {
        column == 0 || self.columns[column - 1].0 != self.columns[column].0
    }

    /// The map as lines of at most `width` columns; of more than `height` rows, the first ones.
    pub(crate) fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let label = self.label(width);
        let columns = window(self.columns.len(), 0, self.fitting(width));
        let mut lines: Vec<String> = self.heading(&columns, label).into();
        for row in 0..self.rows.len().min(height) {
            let mut line = format!(" {}", fit(&self.rows[row], label));
            for column in columns.clone() {
                let cell = self.cell(row, column).map(short);
                line.push_str(&format!(" {}", fit(&cell.unwrap_or_default(), CELL - 1)));
            }
            lines.push(line);
        }
        let hidden = self.rows.len().saturating_sub(height);
        if hidden > 0 || columns.len() < self.columns.len() {
            lines.push(" … the rest: `coord top`".to_owned());
        }
        lines
    }

    /// The columns of the models' names.
    pub(crate) fn label(&self, width: usize) -> usize {
        let longest = self.rows.iter().map(|row| row.chars().count()).max();
        longest.unwrap_or(0).clamp(6, 24).min(width / 3)
    }

    /// How many cells stand beside a name.
    pub(crate) fn fitting(&self, width: usize) -> usize {
        (width.saturating_sub(self.label(width) + 2) / CELL).max(1)
    }

    /// Datasets above seeds.
    pub(crate) fn heading(&self, columns: &Range<usize>, label: usize) -> [String; 2] {
        let mut datasets = " ".repeat(label + 1);
        let mut seeds = format!(" {}", fit("seed", label));
        for column in columns.clone() {
            let (dataset, seed) = &self.columns[column];
            let named = column == columns.start || self.begins_dataset(column);
            let name = if named { dataset.as_str() } else { "" };
            datasets.push_str(&format!(" {}", fit(name, CELL - 1)));
            seeds.push_str(&format!(" {}", fit(&seed.to_string(), CELL - 1)));
        }
        if columns.end < self.columns.len() {
            datasets.push_str(" →");
        }
        [datasets, seeds]
    }
}
