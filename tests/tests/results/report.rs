//! A sweep written up: everything is in it, the page needs nothing else, and a browser shows it.
//!
//! With `HALFHEARD_FIGURES=FOLDER` the page is left in that folder, to be looked at.
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use halfheard_coordinator::{
    analysis,
    config::{ConnectionFlags, Settings},
};
use halfheard_e2e::{
    browser::Browser,
    finished::{self, Matrix},
    servers::Postgres,
};
use halfheard_results::{
    report::{Item, Report, html, markdown},
    statistics::bootstrap::BootstrapOptions,
};
use halfheard_shared::benchmark::Benchmark;
use halfheard_shared::env;
use halfheard_store::Store;
use serde_json::json;
use std::path::Path;

async fn report() -> Report {
    let postgres = Postgres::start().unwrap();
    let store = Store::connect_with_retry(&postgres.url().parse().unwrap())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let matrix = Matrix {
        name: "written-up".to_owned(),
        models: [("almt", ""), ("lnln", ""), ("lnln", "no-dmc")]
            .map(|(method, variant)| (method.to_owned(), variant.to_owned()))
            .into(),
        datasets: vec![Benchmark::Mosi, Benchmark::Sims],
        seeds: vec![1111, 1112],
    };
    finished::simulated(&store, &matrix).await.unwrap();
    let sweep = store.find_sweep("written-up").await.unwrap();
    // The data folder is empty: only the database is available.
    let folder = tempfile::tempdir().unwrap();
    let flags = ConnectionFlags {
        data_dir: Some(folder.path().to_owned()),
        ..ConnectionFlags::default()
    };
    let settings = Settings::resolve(&flags, &env::process).unwrap();
    let options = BootstrapOptions {
        resamples: 100,
        ..BootstrapOptions::default()
    };
    analysis::report(&store, sweep.id, settings.sources(), options)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_sweep_is_written_up() {
    let report = report().await;
    let tables: Vec<Option<u8>> = report
        .sections
        .iter()
        .flat_map(|section| &section.items)
        .filter_map(|item| match item {
            Item::Table(table) => Some(table.number),
            _ => None,
        })
        .collect();
    // Tables 5 to 7 have no row of this sweep but the whole model; the three without a number are
    // laziness, robustness and ranks.
    let numbers: Vec<u8> = tables.iter().flatten().copied().collect();
    assert_eq!(numbers, [2, 3, 4, 8, 11, 12, 9, 10, 13, 14]);
    assert_eq!(tables.len(), numbers.len() + 3);
    let images: Vec<&str> = report.images().map(|image| image.name.as_str()).collect();
    assert!(
        ["ranks", "figure-2", "figure-5", "figure-7"]
            .iter()
            .all(|name| images.contains(name)),
        "{images:?}"
    );
    // MOSEI is not in the sweep, and no worker kept features: both are said.
    let page = html::render(&report);
    for number in [6, 8] {
        assert!(
            page.contains(&format!("Figure {number} is missing: ")),
            "{number}"
        );
    }
    for part in [
        "published",
        "95 % interval",
        "Laziness",
        "Nemenyi",
        "BLAKE3",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let text = markdown::render(&report);
    for image in report.images() {
        assert!(text.contains(&format!("(figures/{}.png)", image.name)));
        assert!(image.png.starts_with(b"\x89PNG"));
    }
    assert!(text.contains("**Table 2.**") && text.contains("## Audit"));
    assert!(!page.contains("<script") && !page.contains("<link"));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    std::fs::write(&file, &page).unwrap();
    if let Some(show) = std::env::var_os("HALFHEARD_FIGURES") {
        std::fs::copy(&file, Path::new(&show).join("report.html")).unwrap();
    }
    a_browser_shows_it(&file, report.images().count()).await;
}

/// In headless Chromium: everything is drawn, and nothing is asked for.
async fn a_browser_shows_it(page: &Path, drawings: usize) {
    if let Some(browser) = Browser::find().unwrap() {
        let scene = json!({"url": format!("file://{}", page.display()), "drawings": drawings});
        browser.run("report.test.mjs", &scene).await.unwrap();
    }
}
