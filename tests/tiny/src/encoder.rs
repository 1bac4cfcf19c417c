//! The encoder.

use anyhow::Result;
use halfheard_shared::numpy_rng::RandomState;
use safetensors::{Dtype, tensor::TensorView};
use std::path::Path;

const VOCABULARY: usize = 200;
const WIDTH: usize = 32;
const LAYERS: usize = 2;

/// Writes a BERT with random weights under the usual names into `folder`.
///
/// # Errors
///
/// It cannot be written.
pub fn encoder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let config = serde_json::json!({
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 32, "type_vocab_size": 2,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        (
            "embeddings.word_embeddings.weight".to_owned(),
            vec![VOCABULARY, WIDTH],
        ),
        (
            "embeddings.position_embeddings.weight".to_owned(),
            vec![32, WIDTH],
        ),
        (
            "embeddings.token_type_embeddings.weight".to_owned(),
            vec![2, WIDTH],
        ),
        ("pooler.dense.weight".to_owned(), vec![WIDTH, WIDTH]),
        ("pooler.dense.bias".to_owned(), vec![WIDTH]),
    ];
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..LAYERS {
        let layer = format!("encoder.layer.{layer}");
        for (name, rows, columns) in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", 2 * WIDTH, WIDTH),
            ("output.dense", WIDTH, 2 * WIDTH),
        ] {
            shapes.push((format!("{layer}.{name}.weight"), vec![rows, columns]));
            shapes.push((format!("{layer}.{name}.bias"), vec![rows]));
        }
        norms.push(format!("{layer}.attention.output.LayerNorm"));
        norms.push(format!("{layer}.output.LayerNorm"));
    }
    for norm in &norms {
        shapes.push((format!("{norm}.weight"), vec![WIDTH]));
        shapes.push((format!("{norm}.bias"), vec![WIDTH]));
    }
    let mut rng = RandomState::new(7);
    let weights: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let scale = name.ends_with("LayerNorm.weight");
            let count: usize = shape.iter().product();
            let bytes = (0..count)
                .flat_map(|_| {
                    let noise = (rng.uniform() as f32 - 0.5) * 0.1;
                    (if scale { 1.0 } else { noise }).to_le_bytes()
                })
                .collect();
            (name, shape, bytes)
        })
        .collect();
    let mut views = Vec::new();
    for (name, shape, bytes) in &weights {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)?;
        views.push((name.as_str(), view));
    }
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path)?;
    Ok(())
}
