//! Headings of blocks.

use super::{Block, layout};
use halfheard_shared::case::{Case, Damage, Modality};

/// What a table without blocks says.
pub(super) const NOTHING: &str = "This sweep has nothing of it.";

/// `MOSI, r = 0.3`.
pub(super) fn heading(block: &Block) -> String {
    let dataset = layout::dataset_title(&block.dataset);
    match block.case {
        Some(case) => format!("{dataset}, {}", case_heading(case)),
        None => dataset,
    }
}

/// `r = 0.3`, `missing language and audio`, `permuted audio`, `block=0.3`.
pub(super) fn case_heading(case: Case) -> String {
    let set = match (case.rate(), case.damage) {
        (Some(rate), _) => return format!("r = {rate}"),
        (_, Damage::Missing(set) | Damage::Permuted(set) | Damage::Averaged(set)) => set,
        _ => return case.to_string(),
    };
    let names = [
        (Modality::Text, "language"),
        (Modality::Audio, "audio"),
        (Modality::Vision, "vision"),
    ];
    let missing = names
        .into_iter()
        .filter(|(modality, _)| set.contains(*modality));
    let missing: Vec<&str> = missing.map(|(_, name)| name).collect();
    let mask = case.mask.map(|seed| format!(" (mask {seed})"));
    let (kind, mask) = (case.damage.kind(), mask.unwrap_or_default());
    format!("{kind} {}{mask}", missing.join(" and "))
}

/// The datasets of a table's blocks, in their order.
pub(super) fn datasets(blocks: &[Block]) -> Vec<&str> {
    let mut datasets: Vec<&str> = Vec::new();
    for block in blocks {
        if !datasets.contains(&block.dataset.as_str()) {
            datasets.push(&block.dataset);
        }
    }
    datasets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_heading_spells_modalities_out() {
        let heading = |text: &str| case_heading(text.parse().unwrap());
        assert_eq!(heading("r=0.3"), "r = 0.3");
        assert_eq!(heading("missing=la"), "missing language and audio");
        assert_eq!(heading("permuted=a@7"), "permuted audio (mask 7)");
        assert_eq!(heading("averaged=av"), "averaged audio and vision");
        assert_eq!(heading("block=0.3@7"), "block=0.3@7");
    }
}
