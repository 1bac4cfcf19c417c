//! The tensors of a safetensors file, by its header.

use super::{
    error::{AGAIN, EncoderError, Result},
    files::recognize,
    values::{Dtype, Place},
};
use safetensors::{SafeTensorError, SafeTensors, tensor::TensorInfo};
use std::path::Path;

/// Maximum size of a header: some hundred for each of a few hundred tensors in bytes.
const MAX_HEADER: u64 = 16 << 20;

/// The tensors of `folder/name`, whose content is `bytes` and whose index among the encoder's files
/// is `file`.
pub(super) fn tensors(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    file: usize,
) -> Result<Vec<(String, Place)>> {
    let refuse = |what: String, remedy: &str| {
        EncoderError::new(folder, format!("its {name} {what}"), remedy)
    };
    if let Some(kind) = recognize(bytes) {
        return Err(refuse(format!("is {}", kind.what), kind.remedy));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(refuse(
            "is a zip, as `torch.save` writes it, and no safetensors file".to_owned(),
            "name it pytorch_model.bin",
        ));
    }
    let size = bytes.len() as u64;
    let header = bytes
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if !(2..=MAX_HEADER).contains(&header) {
        return Err(refuse(
            format!(
                "has {size} bytes and is not a safetensors file: it does not begin with the size of a header"
            ),
            AGAIN,
        ));
    }
    if header + 8 > size {
        return Err(refuse(
            format!(
                "is cut off: it has {size} bytes, its header alone {}",
                header + 8
            ),
            AGAIN,
        ));
    }
    let (length, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| {
        let text = &bytes[8..8 + header as usize];
        match (&error, end_of_data(text)) {
            (SafeTensorError::MetadataIncompleteBuffer, Some(end)) => {
                let expected = end.saturating_add(header + 8);
                let how = if size < expected {
                    "is cut off"
                } else {
                    "is too long"
                };
                refuse(
                    format!("{how}: it has {size} bytes, its header speaks of {expected}"),
                    AGAIN,
                )
            }
            _ => refuse(format!("is not a safetensors file: {error}"), AGAIN),
        }
    })?;
    let start = length + 8;
    metadata
        .tensors()
        .into_iter()
        .map(|(tensor, info)| {
            // `read_metadata` has checked it; a reader of memory does not go by that alone.
            let place = place_of(info, start, file, bytes.len()).ok_or_else(|| {
                let what = format!("says of `{tensor}` that it extends beyond the end of the file");
                refuse(what, AGAIN)
            })?;
            Ok((tensor, place))
        })
        .collect()
}

/// Where a tensor lies in file number `file` of `size` bytes, whose data begins at `start`; `None` if
/// it extends beyond the end.
fn place_of(info: &TensorInfo, start: usize, file: usize, size: usize) -> Option<Place> {
    use safetensors::Dtype as Theirs;
    let dtype = match info.dtype {
        Theirs::F32 => Dtype::F32,
        Theirs::F16 => Dtype::F16,
        Theirs::BF16 => Dtype::BF16,
        Theirs::F64 => Dtype::F64,
        Theirs::I64 => Dtype::Other("I64"),
        Theirs::I32 => Dtype::Other("I32"),
        Theirs::I8 => Dtype::Other("I8"),
        Theirs::U8 => Dtype::Other("U8"),
        Theirs::BOOL => Dtype::Other("BOOL"),
        _ => Dtype::Other("of another kind"),
    };
    let at = start.saturating_add(info.data_offsets.0);
    let end = start.saturating_add(info.data_offsets.1);
    let needs = info
        .shape
        .iter()
        .try_fold(dtype.size(), |all, dim| all.checked_mul(*dim))?;
    (end <= size && needs <= end.saturating_sub(at)).then(|| Place {
        file,
        dtype,
        shape: info.shape.clone(),
        strides: None,
        at,
    })
}

/// The last byte of data that a header speaks of.
fn end_of_data(header: &[u8]) -> Option<u64> {
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    header
        .values()
        .filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64())
        .max()
}
