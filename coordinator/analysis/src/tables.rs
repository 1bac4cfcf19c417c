//! Makes tables: reads what they need beyond the results.

use super::resample;
use halfheard_results::{
    statistics::bootstrap::{BootstrapOptions, BootstrapSamples},
    tables::{
        Table, cases, comparison, curves, derived,
        layout::{self, Layout},
        paper,
    },
};
use halfheard_shared::{
    error::hinted,
    ids::SweepId,
    results::{Filter, Results, Wanted},
};
use halfheard_store::{
    Store,
    results::{Snapshot, load},
};
use std::{fmt, str::FromStr, sync::Arc};

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// A table of the paper.
    Paper(Layout),
    /// Every case.
    Cases,
    /// Areas under curves over rates.
    Curves,
    /// How far predicted classes are from the true ones.
    Laziness,
    /// What is left of a metric at high missing rates.
    Robustness,
    /// Mean ranks.
    Ranks,
}

impl Which {
    /// The tables that the paper does not have.
    pub const OWN: [Which; 5] = [
        Which::Cases,
        Which::Curves,
        Which::Laziness,
        Which::Robustness,
        Which::Ranks,
    ];

    /// Whether the table has numbers beside which others can stand.
    pub fn layout(self) -> Option<Layout> {
        match self {
            Which::Paper(layout) => Some(layout),
            _ => None,
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Paper(layout) => write!(f, "{}", layout.number),
            Which::Cases => f.write_str("cases"),
            Which::Curves => f.write_str("curves"),
            Which::Laziness => f.write_str("laziness"),
            Which::Robustness => f.write_str("robustness"),
            Which::Ranks => f.write_str("ranks"),
        }
    }
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(own) = Which::OWN.into_iter().find(|own| own.to_string() == text) {
            return Ok(own);
        }
        let number = text.parse().ok();
        let layout = number.and_then(layout::find);
        layout.map(Which::Paper).ok_or_else(|| {
            format!("unknown table `{text}`: known are 2 to 14, cases, curves, laziness, robustness and ranks")
        })
    }
}

/// What stands below the numbers of a table of the paper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The paper's numbers.
    Published,
    /// Those of another sweep.
    Sweep {
        /// Its id.
        id: SweepId,
        /// Its name.
        name: String,
    },
}

/// A table and what it has beside its numbers.
#[derive(Clone, Debug)]
pub struct TableRequest {
    /// Which table.
    pub which: Which,
    /// Add a laziness column.
    pub laziness: bool,
    /// Add other numbers and the differences.
    pub beside: Option<Beside>,
    /// Add bootstrap intervals.
    pub intervals: bool,
    /// Of the checkpoints that the test split chose.
    pub on_test: bool,
    /// Add what those have, and by how much that looks better.
    pub optimism: bool,
    /// How to resample.
    pub options: BootstrapOptions,
}

impl TableRequest {
    /// The table alone.
    pub fn of(which: Which) -> Self {
        Self {
            which,
            laziness: false,
            beside: None,
            intervals: false,
            on_test: false,
            optimism: false,
            options: BootstrapOptions::default(),
        }
    }
}

/// Makes a table of a sweep.
///
/// # Errors
///
/// The database's; checkpoints of the test split of a sweep that has none.
pub async fn table(
    store: &Store,
    results: Arc<Results>,
    snapshot: &mut Snapshot,
    request: &TableRequest,
) -> anyhow::Result<Table> {
    let mut source = Source {
        results,
        snapshot,
        on_test: false,
        options: request.options,
    };
    if request.on_test {
        source.choose_on_test()?;
    }
    let mut table = source.table(request).await?;
    if let Which::Paper(layout) = request.which {
        beside(request, store, &mut source, layout, &mut table).await?;
    }
    if request.optimism {
        source.choose_on_test()?;
        comparison::optimism(&mut table, &source.table(request).await?);
    }
    Ok(table)
}

/// What tables are made of.
struct Source<'a> {
    results: Arc<Results>,
    snapshot: &'a mut Snapshot,
    on_test: bool,
    options: BootstrapOptions,
}

impl Source<'_> {
    /// Changes to the checkpoints that the test split chose.
    fn choose_on_test(&mut self) -> anyhow::Result<()> {
        if self.on_test {
            return Ok(());
        }
        let sweep = &self.results.sweep.name;
        let chosen = self.results.chosen_on_test().ok_or_else(|| {
            hinted(
                format!("sweep {sweep} has no checkpoints that the test split chose beside others"),
                "submit it with `selection = \"both\"` under [protocol]: it then keeps both choices",
            )
        })?;
        self.results = Arc::new(chosen);
        self.on_test = true;
        Ok(())
    }

    async fn samples(&mut self, filter: &Filter) -> anyhow::Result<BootstrapSamples> {
        let mut predictions = self.snapshot.predictions(filter).await?;
        if self.on_test {
            predictions = predictions.chosen_on_test();
        }
        Ok(resample(predictions, self.options).await?)
    }

    /// The table alone.
    async fn table(&mut self, request: &TableRequest) -> anyhow::Result<Table> {
        let cells = &self.results.cells;
        Ok(match request.which {
            Which::Paper(layout) => paper::table(&self.results, layout, request.laziness),
            Which::Cases => cases::table(&self.results),
            Which::Curves => curves::table(&self.results),
            Which::Laziness => derived::laziness(cells),
            Which::Robustness => {
                derived::robustness_table(&self.samples(&Filter::default()).await?)
            }
            Which::Ranks => derived::ranks_table(&derived::measurements(cells)),
        })
    }
}

/// Adds the numbers that a table of the paper is compared with.
async fn beside(
    request: &TableRequest,
    store: &Store,
    source: &mut Source<'_>,
    layout: Layout,
    table: &mut Table,
) -> anyhow::Result<()> {
    match &request.beside {
        None => {}
        Some(Beside::Published) => comparison::published(table, &source.results.cells, layout),
        Some(Beside::Sweep { id, name }) => {
            let mut others = load(store, *id, Wanted::default()).await?;
            if source.on_test
                && let Some(chosen) = others.chosen_on_test()
            {
                others = chosen;
            }
            comparison::sweep(table, &others.cells, layout, name);
        }
    }
    if request.intervals {
        let filter = Filter {
            datasets: layout.datasets(&source.results.known),
            ..Filter::default()
        };
        let samples = source.samples(&filter).await?;
        comparison::intervals(table, &samples, layout, source.options);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_parsed_from_its_name() {
        for which in Which::OWN {
            assert_eq!(which.to_string().parse(), Ok(which));
        }
        let Ok(Which::Paper(layout)) = "2".parse() else {
            panic!("Table 2 is one of the paper's");
        };
        assert_eq!(Which::Paper(layout).to_string(), "2");
        assert!(
            "1".parse::<Which>()
                .unwrap_err()
                .contains("unknown table `1`")
        );
    }
}
