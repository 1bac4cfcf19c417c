//! Artifacts in the broker's object bucket.
//!
//! In the form of NATS' object store, with what a worker's login can be trusted with: nothing is
//! rolled up or purged by a writer, and nothing is read through a consumer. A rollup can empty a
//! stream whole, a consumer can deliver to any subject, and the broker's permissions distinguish
//! neither from their harmless forms. So a key may have several versions, of which the last one
//! counts, until the leader removes the others ([`Broker::tidy_artifacts`]).

mod list;
mod object;
mod tidy;

pub use tidy::Tidied;

use super::{ArtifactError, Cause, Key, Opened, is_young};
use crate::broker::{Broker, topology::store_id_of};
use async_nats::jetstream::{
    self,
    context::PublishAckFuture,
    message::StreamMessage,
    object_store::{ObjectInfo, ObjectOptions},
    stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use object::Object;
use std::{collections::VecDeque, sync::Arc, time::SystemTime};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

/// Bytes of a message: under the broker's default limit of 1 MiB, and few round trips.
const MESSAGE: usize = 512 << 10;
/// What the broker keeps beside each message of a file: subject, headers, checksum.
const OVERHEAD: u64 = 256;
/// Messages on their way at once.
const IN_FLIGHT: usize = 8;
/// The most messages of one object: 128 GiB, whose description fits into one message.
const MAX_CHUNKS: usize = 1 << 18;

#[derive(Clone)]
pub(super) struct Bucket {
    name: String,
    context: jetstream::Context,
    stream: Arc<Stream>,
    /// Bytes of a message.
    piece: usize,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) async fn open(broker: &Broker) -> Result<Self, String> {
        let name = broker.names().artifacts_bucket();
        let stream = broker.jetstream().get_stream(format!("OBJ_{name}")).await;
        let stream = stream.map_err(|error| {
            format!(
                "bucket {name} cannot be opened: {error}; the coordinator makes it: is `coord serve` running on this broker?"
            )
        })?;
        Ok(Self::of(broker, stream))
    }

    fn of(broker: &Broker, stream: Stream) -> Self {
        // A broker with a smaller limit gets smaller messages; their headers need room, too.
        let limit = broker
            .client()
            .server_info()
            .max_payload
            .saturating_sub(4096);
        Self {
            name: broker.names().artifacts_bucket(),
            context: broker.jetstream().clone(),
            stream: Arc::new(stream),
            piece: MESSAGE.min(limit).max(1024),
        }
    }

    /// The id that the coordinator gave the bucket.
    pub(super) fn id(&self) -> Option<String> {
        store_id_of(&self.stream.cached_info().config.metadata)
    }

    pub(super) async fn open_key(&self, key: &Key) -> Result<Option<Opened>, ArtifactError> {
        let unreadable = |error| ArtifactError::store(key, "read", true, error);
        let object = Object::of(&self.name, &key.to_string());
        let Some((info, _)) = self.info(&object).await.map_err(unreadable)? else {
            return Ok(None);
        };
        let sequences = object::sequences(&info).map_err(|e| unreadable(e.into()))?;
        let subject = object.chunks(&info.nuid);
        let bucket = self.clone();
        let chunks = futures::stream::iter(sequences)
            .map(move |sequence| {
                let (bucket, subject) = (bucket.clone(), subject.clone());
                async move { bucket.chunk(sequence, &subject).await }
            })
            .buffered(IN_FLIGHT)
            .map_err(std::io::Error::other);
        Ok(Some(Opened {
            bytes: info.size as u64,
            reader: Box::pin(StreamReader::new(chunks.boxed())),
        }))
    }

    pub(super) async fn write(&self, key: &Key, mut content: Opened) -> Result<(), ArtifactError> {
        self.check_room(key, content.bytes).await?;
        let failed = |error| written(key, error);
        let object = Object::of(&self.name, &key.to_string());
        let nuid = object.fresh_nuid();
        let subject = object.chunks(&nuid);
        let (mut sequences, mut size) = (Vec::new(), 0);
        let mut sent: VecDeque<PublishAckFuture> = VecDeque::new();
        loop {
            let chunk = whole_chunk(&mut content, self.piece)
                .await
                .map_err(|error| ArtifactError::io(key, "written", error))?;
            if sent.len() == IN_FLIGHT || chunk.is_empty() {
                let until = if chunk.is_empty() { 0 } else { IN_FLIGHT - 1 };
                while sent.len() > until
                    && let Some(ack) = sent.pop_front()
                {
                    sequences.push(ack.await.map_err(|e| failed(e.into()))?.sequence);
                }
            }
            if chunk.is_empty() {
                break;
            }
            if sequences.len() + sent.len() >= MAX_CHUNKS {
                return Err(failed("it is too large for the bucket".into()));
            }
            size += chunk.len();
            let ack = self.context.publish(subject.clone(), chunk).await;
            sent.push_back(ack.map_err(|e| failed(e.into()))?);
        }
        let info = ObjectInfo {
            options: Some(ObjectOptions {
                max_chunk_size: Some(self.piece),
                link: None,
            }),
            chunks: sequences.len(),
            size,
            metadata: object::listed(&sequences),
            ..object.info(nuid)
        };
        self.describe(&object, &info).await.map_err(failed)
    }

    /// Refuses what cannot fit, before its first part takes the room that is left.
    async fn check_room(&self, key: &Key, bytes: u64) -> Result<(), ArtifactError> {
        let Some(quota) = self.quota().await? else {
            return Ok(());
        };
        let messages = bytes.div_ceil(self.piece as u64) + 2;
        let needed = bytes + messages * OVERHEAD;
        let free = quota.limit.saturating_sub(quota.used);
        if needed > free {
            let short = format!(
                "{needed} bytes are needed, and {free} of the bucket's {} are free",
                quota.limit
            );
            return Err(ArtifactError::full(key, short));
        }
        Ok(())
    }

    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        let object = Object::of(&self.name, &key.to_string());
        let info = self.info(&object).await;
        info.map(|info| info.map(|(info, _)| info.size as u64))
            .map_err(|error| ArtifactError::store(key, "read", true, error))
    }

    /// Whether the key is there in this size and needs not be written again.
    pub(super) async fn is_young(&self, key: &Key, bytes: u64) -> Result<bool, ArtifactError> {
        let object = Object::of(&self.name, &key.to_string());
        let info = self.info(&object).await;
        let info = info.map_err(|error| ArtifactError::store(key, "read", true, error))?;
        Ok(info.is_some_and(|(info, written)| {
            info.size as u64 == bytes && is_young(written, key.kind().grace())
        }))
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), ArtifactError> {
        let failed = |error| ArtifactError::store(key, "deleted", true, error);
        let object = Object::of(&self.name, &key.to_string());
        if self.info(&object).await.map_err(failed)?.is_none() {
            return Ok(());
        }
        let info = ObjectInfo {
            deleted: true,
            ..object.info(object.fresh_nuid())
        };
        self.describe(&object, &info).await.map_err(failed)
    }

    /// Adds a version of an object: from now on it counts.
    async fn describe(&self, object: &Object, info: &ObjectInfo) -> Result<(), Cause> {
        let json = serde_json::to_vec(info)?;
        let ack = self.context.publish(object.versions(), json.into()).await?;
        ack.await?;
        Ok(())
    }

    /// The last version of an object, and when it was written by the broker's clock; `None` if the
    /// object does not exist or was deleted.
    async fn info(&self, object: &Object) -> Result<Option<(ObjectInfo, SystemTime)>, Cause> {
        let Some(message) = self.last(&object.versions()).await? else {
            return Ok(None);
        };
        let info: ObjectInfo = serde_json::from_slice(&message.payload)?;
        Ok((!info.deleted).then(|| (info, message.time.into())))
    }

    /// The last message on a subject.
    async fn last(&self, subject: &str) -> Result<Option<StreamMessage>, Cause> {
        if !self.reads_directly() {
            let message = self.stream.get_last_raw_message_by_subject(subject).await;
            return match message {
                Ok(message) => Ok(Some(message)),
                Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(e) => Err(e.into()),
            };
        }
        match self.stream.direct_get_last_for_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(e) if e.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// A piece of an object, which is on `subject`.
    async fn chunk(&self, sequence: u64, subject: &str) -> Result<Bytes, Cause> {
        let message = if self.reads_directly() {
            self.stream.direct_get(sequence).await?
        } else {
            self.stream.get_raw_message(sequence).await?
        };
        if message.subject.as_str() != subject {
            return Err("a piece of it belongs to another object".into());
        }
        Ok(message.payload)
    }

    /// Whether the stream allows it; one that an operator made may not.
    fn reads_directly(&self) -> bool {
        self.stream.cached_info().config.allow_direct
    }
}

/// The next `size` bytes, fewer at the end, none behind it.
async fn whole_chunk(content: &mut Opened, size: usize) -> std::io::Result<Bytes> {
    let mut chunk = BytesMut::with_capacity(size);
    while chunk.len() < size {
        let mut rest = (&mut content.reader).take((size - chunk.len()) as u64);
        if rest.read_buf(&mut chunk).await? == 0 {
            break;
        }
    }
    Ok(chunk.freeze())
}

/// What it means that the bucket did not take something.
fn written(key: &Key, error: Cause) -> ArtifactError {
    if says_full(error.as_ref()) {
        ArtifactError::full(key, error)
    } else {
        ArtifactError::store(key, "written", true, error)
    }
}

/// Whether the broker refused a message for want of room, in the bucket, the account or on its disk.
fn says_full(error: &dyn std::error::Error) -> bool {
    let text = crate::error::chain(error);
    [
        "maximum bytes exceeded",
        "resource limits exceeded",
        "resources exceeded",
        "insufficient resources",
        "insufficient storage",
        "no space left",
    ]
    .iter()
    .any(|words| text.contains(words))
}
