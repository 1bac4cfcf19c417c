//! Reading and writing tensors as safetensors.

use super::TrainError;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{borrow::Cow, collections::HashMap};
use tch::{Device, Kind, Tensor, nn};

fn dtype(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => return None,
    })
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

/// A tensor on the CPU, whose bytes are copied when it is written.
struct LazyTensor {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
}

impl safetensors::View for &LazyTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.bytes];
        self.tensor.copy_data_u8(&mut bytes, self.tensor.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.bytes
    }
}

/// Encodes named tensors from any device as safetensors. Equal tensors give equal bytes if `metadata`
/// has at most one entry.
pub(super) fn serialize<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, TrainError> {
    let mut lazy = Vec::new();
    for (name, tensor) in tensors {
        let kind = tensor.f_kind()?;
        let dtype = dtype(kind).ok_or_else(|| TrainError::Weights {
            checkpoint: "being written".to_owned(),
            what: format!("`{name}` has kind {kind:?}, which safetensors does not support"),
        })?;
        let tensor = tensor
            .f_detach()?
            .f_to_device(Device::Cpu)?
            .f_contiguous()?;
        let shape = tensor.size().iter().map(|&d| d as usize).collect();
        let bytes = tensor.numel() * kind.elt_size_in_bytes();
        lazy.push((
            name,
            LazyTensor {
                tensor,
                dtype,
                shape,
                bytes,
            },
        ));
    }
    let views = lazy.iter().map(|(name, tensor)| (*name, tensor));
    safetensors::serialize(views, metadata).map_err(TrainError::State)
}

/// Copies a tensor of a safetensors file to `device`; `None` for a type that libtorch lacks.
pub(super) fn tensor(view: &TensorView<'_>, device: Device) -> Result<Option<Tensor>, TrainError> {
    let Some(kind) = kind(view.dtype()) else {
        return Ok(None);
    };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
    Ok(Some(tensor.f_to_device(device)?))
}

/// Encodes a model's weights as a checkpoint.
pub(super) fn checkpoint(vars: &nn::VarStore) -> Result<Vec<u8>, TrainError> {
    let variables = vars.variables();
    let mut named: Vec<(&str, &Tensor)> = variables.iter().map(|(n, t)| (n.as_str(), t)).collect();
    named.sort_by_key(|(name, _)| *name);
    serialize(named, None)
}

/// Loads a checkpoint's weights into a model; `name` is for messages. The checkpoint must contain all
/// variables of the model in their shapes.
pub(super) fn load(vars: &nn::VarStore, checkpoint: &[u8], name: &str) -> Result<(), TrainError> {
    let wrong = |what: String| TrainError::Weights {
        checkpoint: name.to_owned(),
        what,
    };
    let file = SafeTensors::deserialize(checkpoint).map_err(|e| wrong(e.to_string()))?;
    let _guard = tch::no_grad_guard();
    for (name, mut variable) in vars.variables() {
        let view = file.tensor(&name).map_err(|e| wrong(e.to_string()))?;
        let saved = tensor(&view, variable.device())?
            .ok_or_else(|| wrong(format!("`{name}` has type {:?}", view.dtype())))?;
        if saved.size() != variable.size() {
            return Err(wrong(format!(
                "`{name}` has shape {:?}, expected {:?}",
                saved.size(),
                variable.size()
            )));
        }
        variable.f_copy_(&saved)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(value: f64) -> nn::VarStore {
        let vars = nn::VarStore::new(Device::Cpu);
        let _ = vars.root().var("w", &[2, 3], nn::Init::Const(value));
        // A scalar and an integer.
        let _ = vars.root().zeros_no_train("running", &[]);
        let _ = vars
            .root()
            .add("steps", Tensor::from(7_i64) + value as i64, false);
        vars
    }

    #[test]
    fn weights_roundtrip_and_equal_weights_have_equal_bytes() {
        let (a, b) = (model(1.5), model(2.0));
        let bytes = checkpoint(&a).unwrap();
        assert_ne!(bytes, checkpoint(&b).unwrap());
        load(&b, &bytes, "x").unwrap();
        assert_eq!(bytes, checkpoint(&b).unwrap());
    }

    #[test]
    fn checkpoint_of_another_model_is_rejected() {
        let other = nn::VarStore::new(Device::Cpu);
        let _ = other.root().var("w", &[3, 2], nn::Init::Const(0.0));
        let bytes = checkpoint(&model(1.0)).unwrap();
        let error = load(&other, &bytes, "x").unwrap_err().to_string();
        assert!(
            error.contains("[2, 3]") && error.contains("[3, 2]"),
            "{error}"
        );
        for end in [0, 5, bytes.len() / 2, bytes.len() - 1] {
            assert!(load(&other, &bytes[..end], "x").is_err());
        }
    }
}
