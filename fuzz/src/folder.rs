//! Readers that open files get them in a folder in memory (`TMPDIR=/dev/shm`).

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A folder of this process that a target writes its inputs to.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    /// An empty folder.
    ///
    /// # Panics
    ///
    /// It cannot be made: then nothing can be fuzzed.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces a file, as a new one: a mapping of the old one stays what it was.
    ///
    /// # Panics
    ///
    /// It cannot be written.
    pub fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, content).expect("a file in memory");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// The configuration and the weights of the smallest BERT.
///
/// # Panics
///
/// The writer of safetensors refuses them.
pub fn encoder_files() -> (Vec<u8>, Vec<u8>) {
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": 8, "hidden_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "intermediate_size": 2, "max_position_embeddings": 4,
        "type_vocab_size": 2,
    });
    let config = config.to_string().into_bytes();
    let scratch = Scratch::new();
    scratch.put("config.json", &config);
    let known = halfheard_shared::encoder::Config::read(scratch.path()).expect("the config above");
    let zeros = vec![0; 4096];
    let tensors = known.tensors().map(|(name, shape)| {
        let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes);
        (name, view.expect("a tensor of zeros"))
    });
    let weights = safetensors::serialize(tensors, None).expect("small tensors");
    (config, weights)
}
