//! The dataset.

use anyhow::{Context as _, Result};
use halfheard_shared::{
    dataset::{
        Kind, Shapes, TensorFile,
        layout::{self, SplitSizes},
    },
    numpy_rng::RandomState,
};
use std::{collections::BTreeMap, path::Path};

const SHAPES: Shapes = Shapes {
    text_len: 12,
    audio_len: 10,
    audio_dim: 4,
    vision_len: 8,
    vision_dim: 5,
};

/// Writes a dataset of MOSI's protocol with `train` training samples: a word says the mood, and audio
/// and vision follow it with noise.
///
/// # Errors
///
/// The file exists or cannot be written.
pub fn dataset(path: &Path, train: usize) -> Result<()> {
    write(path, train, SHAPES)
}

/// As [`dataset`], with the same labels and as many steps of audio and vision as of text.
///
/// # Errors
///
/// As those of [`dataset`].
pub fn aligned(path: &Path, train: usize) -> Result<()> {
    let steps = SHAPES.text_len;
    let aligned = Shapes {
        audio_len: steps,
        vision_len: steps,
        ..SHAPES
    };
    write(path, train, aligned)
}

fn write(path: &Path, train: usize, shapes: Shapes) -> Result<()> {
    let sizes = [train, 32, 40].map(|samples| SplitSizes {
        samples,
        id_bytes: 0,
        raw_text_bytes: 0,
    });
    let specs = layout::tensors(Kind::Mosi, shapes, sizes);
    let mut rng = RandomState::new(11);
    let moods: BTreeMap<&str, Vec<f32>> = ["train", "valid", "test"]
        .into_iter()
        .zip(sizes)
        .map(|(split, sizes)| {
            let mood = |_| ((rng.uniform() * 6.0 - 3.0) as f32 * 5.0).round() / 5.0;
            (split, (0..sizes.samples).map(mood).collect())
        })
        .collect();
    let mut file = TensorFile::create(path, Kind::Mosi, specs.clone())?;
    for spec in &specs {
        let (split, field) = spec.name.split_once('.').context("a split's tensor")?;
        let moods = moods.get(split).context("a split")?;
        match field {
            "audio_lengths" => {
                file.write_i64(&spec.name, &vec![shapes.audio_len as i64 - 1; moods.len()])?
            }
            "vision_lengths" => {
                file.write_i64(&spec.name, &vec![shapes.vision_len as i64; moods.len()])?
            }
            "ids_offsets" | "raw_text_offsets" => {
                file.write_i64(&spec.name, &vec![0; moods.len() + 1])?;
            }
            "text" => {
                for mood in moods {
                    let mut sample = vec![0; 3 * shapes.text_len];
                    let words = 4 + rng.below(6);
                    for (i, id) in sample.iter_mut().take(words + 2).enumerate() {
                        *id = match i {
                            0 => 101,
                            _ if i == words + 1 => 102,
                            _ if i % 2 == 1 => 120 + (mood * 5.0) as i32,
                            _ => 150 + rng.below(50) as i32,
                        };
                    }
                    sample[shapes.text_len..shapes.text_len + words + 2].fill(1);
                    file.write_i32(&spec.name, &sample)?;
                }
            }
            "ids" | "raw_text" => {}
            "labels" => file.write_f32(&spec.name, moods)?,
            _ => {
                let size: usize = spec.shape[1..].iter().product();
                for mood in moods {
                    let mut noisy = |_| mood * 0.3 + rng.uniform() as f32 - 0.5;
                    let sample: Vec<f32> = (0..size).map(&mut noisy).collect();
                    file.write_f32(&spec.name, &sample)?;
                }
            }
        }
    }
    file.finish()?;
    Ok(())
}
