//! Describes a dataset.

use comfy_table::{CellAlignment, Table, presets};
use halfheard_import::official;
use halfheard_shared::dataset::{
    FeatureStats, LengthStats, Manifest, Source, Split, SplitManifest,
};
use indicatif::{HumanBytes, HumanCount};
use std::path::Path;

/// Describes a dataset in several lines.
pub(super) fn describe(path: &Path, manifest: &Manifest) -> String {
    let shapes = manifest.shapes;
    let source = match &manifest.source {
        Source::Import { file, bytes, .. } => format!("{file} ({})", HumanBytes(*bytes)),
        Source::Synthesize { seed, .. } => format!("synthetic, seed {seed}"),
    };
    let mut out = format!(
        "  file     {} ({})\n  blake3   {}\n  from     {source}\n  follows  {}\n  shapes   text {}, audio {}x{}, vision {}x{}\n",
        path.display(),
        HumanBytes(manifest.bytes),
        manifest.blake3,
        manifest.kind,
        shapes.text_len,
        shapes.audio_len,
        shapes.audio_dim,
        shapes.vision_len,
        shapes.vision_dim,
    );
    if let Source::Import {
        sha256: Some(sha256),
        official,
        ..
    } = &manifest.source
    {
        let known = match official {
            Some(name) => format!("{name} (by its SHA-256)"),
            None => format!(
                "unknown; no published file has this SHA-256 ({} are known)",
                official::all().count()
            ),
        };
        out.push_str(&format!("  sha256   {sha256}\n  official {known}\n"));
    }
    out.push('\n');
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "train", "valid", "test"]);
    let mut row = |name: &str, value: &dyn Fn(&SplitManifest) -> String| {
        let values =
            Split::ALL.map(|split| manifest.splits.get(&split).map_or_else(String::new, value));
        table.add_row(std::iter::once(format!("  {name}")).chain(values));
    };
    row("samples", &|split| {
        HumanCount(split.samples as u64).to_string()
    });
    row("mean label", &|split| format!("{:.3}", split.label_mean));
    for (index, class) in manifest.classes.iter().enumerate() {
        row(&format!("class {class}"), &|split| {
            let count = split.label_counts.get(index).copied().unwrap_or(0);
            format!(
                "{} ({:.1}%)",
                HumanCount(count),
                100.0 * count as f64 / split.samples.max(1) as f64
            )
        });
    }
    row("text length", &|split| lengths(split.text_lengths));
    row("audio length", &|split| lengths(split.audio_lengths));
    row("vision length", &|split| lengths(split.vision_lengths));
    row("audio", &|split| features(split.audio));
    row("vision", &|split| features(split.vision));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    out.push_str(&table.trim_fmt());
    out.push('\n');
    for note in &manifest.notes {
        out.push_str(&format!("  note: {note}\n"));
    }
    out
}

fn lengths(stats: LengthStats) -> String {
    format!("{} to {}, mean {:.1}", stats.min, stats.max, stats.mean)
}

fn features(stats: FeatureStats) -> String {
    format!(
        "{:.2} ± {:.2}, {:.0}% zeros",
        stats.mean,
        stats.std,
        100.0 * stats.zeros
    )
}
