//! Reads a dataset file by mapping it.

use super::{
    DatasetError, Kind, Shapes, Split, UnknownKind,
    layout::{self, Element, FORMAT, MAX_HEADER, SplitSizes, TensorSpec, VERSION},
};
use crate::case::Modality;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::Metadata};
use std::{
    collections::HashMap,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

/// A dataset file, mapped and checked. Cheap to share between threads behind an `Arc`.
///
/// The file must not be changed while it is mapped; nothing in this program writes to a finished
/// one.
#[derive(Debug)]
pub struct Dataset {
    map: Mmap,
    path: PathBuf,
    kind: Kind,
    shapes: Shapes,
    splits: [SplitRanges; 3],
}

/// Where one split's tensors lie in the file, in bytes.
#[derive(Debug, Clone)]
struct SplitRanges {
    samples: usize,
    text: Range<usize>,
    audio: Range<usize>,
    vision: Range<usize>,
    labels: Range<usize>,
    unimodal: Option<[Range<usize>; 3]>,
    audio_lengths: Range<usize>,
    vision_lengths: Range<usize>,
    ids: Range<usize>,
    ids_offsets: Range<usize>,
    raw_text: Range<usize>,
    raw_text_offsets: Range<usize>,
}

impl SplitRanges {
    fn new(
        split: Split,
        samples: usize,
        kind: Kind,
        ranges: &HashMap<String, Range<usize>>,
    ) -> Self {
        let range = |name: &str| {
            ranges
                .get(&format!("{split}.{name}"))
                .cloned()
                .unwrap_or(0..0)
        };
        Self {
            samples,
            text: range("text"),
            audio: range("audio"),
            vision: range("vision"),
            labels: range("labels"),
            unimodal: kind
                .has_unimodal_labels()
                .then(|| ["labels_text", "labels_audio", "labels_vision"].map(range)),
            audio_lengths: range("audio_lengths"),
            vision_lengths: range("vision_lengths"),
            ids: range("ids"),
            ids_offsets: range("ids_offsets"),
            raw_text: range("raw_text"),
            raw_text_offsets: range("raw_text_offsets"),
        }
    }
}

fn tensor_error(path: &Path, tensor: &str, what: String) -> DatasetError {
    DatasetError::Tensor {
        path: path.to_owned(),
        tensor: tensor.to_owned(),
        what,
    }
}

/// The protocol that the header names, after its format and version.
fn read_kind(path: &Path, metadata: &Metadata) -> Result<Kind, DatasetError> {
    let not = |what: String| DatasetError::NotADataset {
        path: path.to_owned(),
        what,
    };
    let about: HashMap<String, String> = metadata.metadata().clone().unwrap_or_default();
    let entry = |key: &str| about.get(key).map_or("", String::as_str);
    if entry("format") != FORMAT {
        return Err(not("its header does not say so".to_owned()));
    }
    if entry("version") != VERSION.to_string() {
        return Err(not(format!(
            "it has layout version `{}`, this program reads {VERSION}",
            entry("version").escape_debug()
        )));
    }
    Ok(match entry("kind") {
        // Written only for a protocol that somebody defined.
        "own" => serde_json::from_str(entry("protocol"))
            .map_err(|error| not(format!("its protocol cannot be used: {error}")))?,
        id => id
            .parse()
            .map_err(|error: UnknownKind| not(error.to_string()))?,
    })
}

/// The sizes of samples and of splits, in a file of `bytes`; none may be 0.
fn read_sizes(
    path: &Path,
    metadata: &Metadata,
    bytes: usize,
) -> Result<(Shapes, [SplitSizes; 3]), DatasetError> {
    let tensor_error = |tensor: &str, what: String| tensor_error(path, tensor, what);
    let dims = |name: &str, rank: usize| -> Result<Vec<usize>, DatasetError> {
        let info = metadata
            .info(name)
            .ok_or_else(|| tensor_error(name, "is missing".to_owned()))?;
        if info.shape.len() != rank {
            return Err(tensor_error(
                name,
                format!("has shape {:?}, {rank} dimensions expected", info.shape),
            ));
        }
        Ok(info.shape.clone())
    };
    // Sizes are read off the tensors that define them; then every tensor must fit the layout.
    let text = dims("train.text", 3)?;
    let audio = dims("train.audio", 3)?;
    let vision = dims("train.vision", 3)?;
    let shapes = Shapes {
        text_len: text[2],
        audio_len: audio[1],
        audio_dim: audio[2],
        vision_len: vision[1],
        vision_dim: vision[2],
    };
    let mut sizes = [SplitSizes {
        samples: 0,
        id_bytes: 0,
        raw_text_bytes: 0,
    }; 3];
    for (split, sizes) in Split::ALL.into_iter().zip(&mut sizes) {
        sizes.samples = dims(&format!("{split}.text"), 3)?[0];
        sizes.id_bytes = dims(&format!("{split}.ids"), 1)?[0];
        sizes.raw_text_bytes = dims(&format!("{split}.raw_text"), 1)?[0];
        // A sample takes more than a byte, so this also keeps `samples + 1` from overflowing.
        if sizes.samples == 0 || sizes.samples > bytes {
            return Err(tensor_error(
                &format!("{split}.text"),
                format!("has {} samples", sizes.samples),
            ));
        }
    }
    if [
        shapes.text_len,
        shapes.audio_len,
        shapes.audio_dim,
        shapes.vision_len,
        shapes.vision_dim,
    ]
    .contains(&0)
    {
        return Err(tensor_error(
            "train.text",
            format!("has a size of 0 in {shapes:?}"),
        ));
    }
    Ok((shapes, sizes))
}

/// Where each tensor of the layout lies in the file, in bytes; each must have its type and shape.
fn locate(
    path: &Path,
    map: &[u8],
    metadata: &Metadata,
    data_start: usize,
    specs: Vec<TensorSpec>,
) -> Result<HashMap<String, Range<usize>>, DatasetError> {
    let mut ranges = HashMap::new();
    for spec in specs {
        let info = metadata
            .info(&spec.name)
            .ok_or_else(|| tensor_error(path, &spec.name, "is missing".to_owned()))?;
        let dtype = match spec.element {
            Element::I64 => Dtype::I64,
            Element::I32 => Dtype::I32,
            Element::F32 => Dtype::F32,
            Element::U8 => Dtype::U8,
        };
        if info.dtype != dtype || info.shape != spec.shape {
            return Err(tensor_error(
                path,
                &spec.name,
                format!(
                    "is {:?} {:?}, {dtype:?} {:?} expected",
                    info.dtype, info.shape, spec.shape
                ),
            ));
        }
        let (start, end) = info.data_offsets;
        let range = data_start.saturating_add(start)..data_start.saturating_add(end);
        let bytes = map.get(range.clone()).ok_or_else(|| {
            tensor_error(
                path,
                &spec.name,
                "extends beyond the end of the file".to_owned(),
            )
        })?;
        if bytes.as_ptr().align_offset(spec.element.size()) != 0 {
            return Err(tensor_error(
                path,
                &spec.name,
                format!("is not aligned to {} bytes", spec.element.size()),
            ));
        }
        ranges.insert(spec.name, range);
    }
    Ok(ranges)
}

impl Dataset {
    /// Maps the file at `path` and checks its header, shapes, text, lengths and labels. The audio
    /// and vision features are not looked at; [`Dataset::check_features`] does that.
    ///
    /// # Errors
    /// The file cannot be read, is not a dataset of this version, or holds what the protocol does not
    /// allow. No content of the file makes this panic.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(DatasetError::io(path))?;
        // SAFETY: finished dataset files are never written to (see the type's comment); the
        // content is checked before use and every bit pattern is a valid number.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| {
            let bytes = file.metadata().map_or(0, |about| about.len());
            DatasetError::io(path)(crate::mapping::explain(error, bytes))
        })?;
        let not = |what: String| DatasetError::NotADataset {
            path: path.to_owned(),
            what,
        };

        let size = map
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if size == 0 || size > MAX_HEADER as u64 {
            return Err(not(
                "it has no safetensors header of a possible size".to_owned()
            ));
        }
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| not(format!("bad header: {error}")))?;
        let data_start = 8 + header;
        let kind = read_kind(path, &metadata)?;
        let (shapes, sizes) = read_sizes(path, &metadata, map.len())?;
        let ranges = locate(
            path,
            &map,
            &metadata,
            data_start,
            layout::tensors(kind, shapes, sizes),
        )?;
        let splits = Split::ALL
            .map(|split| SplitRanges::new(split, sizes[split.index()].samples, kind, &ranges));
        let dataset = Self {
            map,
            path: path.to_owned(),
            kind,
            shapes,
            splits,
        };
        dataset.check_values()?;
        Ok(dataset)
    }

    /// Whose protocol it follows.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sizes that all samples share.
    pub fn shapes(&self) -> Shapes {
        self.shapes
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// BLAKE3 of the whole file, computed now on all cores' behalf by the calling thread.
    pub fn blake3(&self) -> blake3::Hash {
        blake3::hash(&self.map)
    }

    /// One split.
    pub fn split(&self, split: Split) -> SplitView<'_> {
        SplitView {
            data: self,
            split,
            ranges: &self.splits[split.index()],
        }
    }

    fn value_error(&self, split: Split, tensor: &str, sample: usize, what: String) -> DatasetError {
        DatasetError::Value {
            path: self.path.clone(),
            tensor: format!("{split}.{tensor}"),
            sample,
            what,
        }
    }

    /// Everything but the features.
    fn check_values(&self) -> Result<(), DatasetError> {
        let l = self.shapes.text_len;
        for split in Split::ALL {
            let view = self.split(split);
            for (sample, text) in view.text().chunks_exact(3 * l).enumerate() {
                let (ids, rest) = text.split_at(l);
                let (mask, segments) = rest.split_at(l);
                let problem = if let Some(id) = ids.iter().find(|&&id| id < 0) {
                    Some(format!("has token id {id}"))
                } else if segments.iter().any(|&s| s != 0 && s != 1) {
                    Some("has a segment other than 0 and 1".to_owned())
                } else {
                    mask_problem(mask)
                };
                if let Some(what) = problem {
                    return Err(self.value_error(split, "text", sample, what));
                }
            }
            let [low, high] = self.kind.label_range();
            let unimodal = [Modality::Text, Modality::Audio, Modality::Vision]
                .into_iter()
                .zip(["labels_text", "labels_audio", "labels_vision"])
                .filter_map(|(modality, name)| Some((name, view.labels_of(modality)?)));
            for (name, labels) in std::iter::once(("labels", view.labels())).chain(unimodal) {
                if let Some(sample) = labels.iter().position(|y| !(low..=high).contains(y)) {
                    let what = format!("label {} is outside [{low}, {high}]", labels[sample]);
                    return Err(self.value_error(split, name, sample, what));
                }
            }
            for (name, lengths, max) in [
                ("audio_lengths", view.audio_lengths(), self.shapes.audio_len),
                (
                    "vision_lengths",
                    view.vision_lengths(),
                    self.shapes.vision_len,
                ),
            ] {
                if let Some(sample) = lengths.iter().position(|&n| n < 0 || n as u64 > max as u64) {
                    let what = format!("length {} is outside 0 to {max}", lengths[sample]);
                    return Err(self.value_error(split, name, sample, what));
                }
            }
            for (name, blob, offsets) in [
                ("ids", &view.ranges.ids, &view.ranges.ids_offsets),
                (
                    "raw_text",
                    &view.ranges.raw_text,
                    &view.ranges.raw_text_offsets,
                ),
            ] {
                let blob = &self.map[blob.clone()];
                let offsets: &[i64] = self.numbers(offsets);
                let ends = (offsets.first().copied(), offsets.last().copied());
                if ends != (Some(0), Some(blob.len() as i64)) {
                    return Err(self.value_error(
                        split,
                        name,
                        0,
                        "offsets do not span the texts".to_owned(),
                    ));
                }
                for (sample, pair) in offsets.windows(2).enumerate() {
                    let slice = usize::try_from(pair[0])
                        .ok()
                        .zip(usize::try_from(pair[1]).ok())
                        .and_then(|(from, to)| blob.get(from..to));
                    if slice.is_none_or(|bytes| std::str::from_utf8(bytes).is_err()) {
                        return Err(self.value_error(
                            split,
                            name,
                            sample,
                            "is not UTF-8 text within the file".to_owned(),
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that every audio and vision feature is finite. Reads the whole file.
    pub fn check_features(&self) -> Result<(), DatasetError> {
        for split in Split::ALL {
            let view = self.split(split);
            for (name, features, size) in [
                (
                    "audio",
                    view.audio(),
                    self.shapes.audio_len * self.shapes.audio_dim,
                ),
                (
                    "vision",
                    view.vision(),
                    self.shapes.vision_len * self.shapes.vision_dim,
                ),
            ] {
                if let Some(at) = features.iter().position(|x| !x.is_finite()) {
                    let what = format!(
                        "value {} at position {} is not finite",
                        features[at],
                        at % size
                    );
                    return Err(self.value_error(split, name, at / size, what));
                }
            }
        }
        Ok(())
    }

    /// The numbers in a range that `open` has checked for bounds, size and alignment.
    fn numbers<T: Plain>(&self, range: &Range<usize>) -> &[T] {
        // SAFETY: every bit pattern is a valid `T` (`Plain`); `align_to` itself keeps to alignment
        // and length, and with both checked at opening the middle is everything.
        let (_, numbers, _) = unsafe { self.map[range.clone()].align_to::<T>() };
        numbers
    }
}

/// What is wrong with one sample's text mask, if anything: it must be ones, at least one, and then
/// zeros.
pub fn mask_problem(mask: &[i32]) -> Option<String> {
    let ones = mask.iter().take_while(|&&m| m == 1).count();
    if mask.iter().all(|&m| m == 0) {
        Some("has an empty mask".to_owned())
    } else if ones == 0 || mask[ones..].iter().any(|&m| m != 0) {
        Some("has a mask that is not ones followed by zeros".to_owned())
    } else {
        None
    }
}

/// Number types for which every bit pattern is a value.
trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for i32 {}
impl Plain for i64 {}

/// One split of a mapped dataset; all slices borrow from the map.
#[derive(Clone, Copy, Debug)]
pub struct SplitView<'a> {
    data: &'a Dataset,
    split: Split,
    ranges: &'a SplitRanges,
}

impl<'a> SplitView<'a> {
    /// Which split.
    pub fn split(&self) -> Split {
        self.split
    }

    /// Samples N; never 0.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a split is never empty: open refuses it"
    )]
    pub fn len(&self) -> usize {
        self.ranges.samples
    }

    /// Token ids, mask and segments, `[N, 3, L]`.
    pub fn text(&self) -> &'a [i32] {
        self.data.numbers(&self.ranges.text)
    }

    /// Audio features, `[N, Ta, Da]`.
    pub fn audio(&self) -> &'a [f32] {
        self.data.numbers(&self.ranges.audio)
    }

    /// Vision features, `[N, Tv, Dv]`.
    pub fn vision(&self) -> &'a [f32] {
        self.data.numbers(&self.ranges.vision)
    }

    /// Labels, `[N]`.
    pub fn labels(&self) -> &'a [f32] {
        self.data.numbers(&self.ranges.labels)
    }

    /// Labels of one modality alone, `[N]`, where the dataset has them (SIMS).
    pub fn labels_of(&self, modality: Modality) -> Option<&'a [f32]> {
        let ranges = self.ranges.unimodal.as_ref()?;
        let [text, audio, vision] = ranges;
        Some(self.data.numbers(match modality {
            Modality::Text => text,
            Modality::Audio => audio,
            Modality::Vision => vision,
        }))
    }

    /// Audio steps of each sample that are not padding, `[N]`.
    pub fn audio_lengths(&self) -> &'a [i64] {
        self.data.numbers(&self.ranges.audio_lengths)
    }

    /// Vision steps of each sample that are not padding, `[N]`.
    pub fn vision_lengths(&self) -> &'a [i64] {
        self.data.numbers(&self.ranges.vision_lengths)
    }

    /// The id of a sample; empty where `sample` is out of range.
    pub fn id(&self, sample: usize) -> &'a str {
        self.string(&self.ranges.ids, &self.ranges.ids_offsets, sample)
    }

    /// The raw text of a sample; empty where `sample` is out of range.
    pub fn raw_text(&self, sample: usize) -> &'a str {
        self.string(&self.ranges.raw_text, &self.ranges.raw_text_offsets, sample)
    }

    fn string(&self, blob: &Range<usize>, offsets: &'a Range<usize>, sample: usize) -> &'a str {
        let offsets: &[i64] = self.data.numbers(offsets);
        let blob = &self.data.map[blob.clone()];
        // `open` has checked that every pair is an inner range of UTF-8.
        match (offsets.get(sample), offsets.get(sample + 1)) {
            (Some(&from), Some(&to)) => blob
                .get(from as usize..to as usize)
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .unwrap_or(""),
            _ => "",
        }
    }
}
