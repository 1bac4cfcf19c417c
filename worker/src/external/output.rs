//! What a program writes to standard error: the end in memory, all of it in a file.

use halfheard_shared::external::OUTPUT_TAIL;
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write as _},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The most bytes that are kept in the file.
const MAX_FILE: u64 = 256 << 20;
/// Lines that explain a failure.
const LAST_LINES: usize = 12;
/// How often one who waits for the end looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What was captured of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Captured {
    /// The last bytes, as text.
    pub(crate) tail: String,
    /// Bytes of the whole.
    pub(crate) bytes: u64,
    /// All of it, up to a limit.
    pub(crate) whole: Vec<u8>,
}

/// Where a run leaves what was captured, however it ended.
#[derive(Clone, Default)]
pub(crate) struct OutputSink(Arc<Mutex<Option<Captured>>>);

impl OutputSink {
    pub(super) fn put(&self, captured: Captured) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(captured);
    }

    /// What was captured, once.
    pub(crate) fn take(&self) -> Option<Captured> {
        let mut captured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        captured.take()
    }
}

/// The output of a program, read by a thread of its own as it is written.
pub(super) struct Listening {
    output: Output,
    thread: JoinHandle<()>,
}

impl Listening {
    /// Begins to read, and to keep all of it in a file.
    pub(super) fn start(
        from: Option<impl Read + Send + 'static>,
        file: Option<File>,
    ) -> io::Result<Self> {
        let output = Output::default();
        let kept = output.clone();
        let thread = std::thread::Builder::new().name("program-log".to_owned());
        let thread = thread.spawn(move || {
            if let Some(from) = from {
                kept.read(from, file);
            }
        })?;
        Ok(Self { output, thread })
    }

    /// What was read so far.
    pub(super) fn so_far(&self) -> &Output {
        &self.output
    }

    /// What was read once there is no more, or once this time has passed. That a program has ended does not mean that
    /// its last words are read: they wait in a pipe.
    pub(super) fn to_the_end(&self, within: Duration) -> &Output {
        let since = Instant::now();
        while !self.thread.is_finished() && since.elapsed() < within {
            std::thread::sleep(LOOK_EVERY);
        }
        &self.output
    }
}

/// The output so far. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Output(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tail: VecDeque<u8>,
    bytes: u64,
}

impl Output {
    /// Reads until the end, which comes when no process holds the pipe any more.
    pub(super) fn read(&self, mut from: impl Read, mut file: Option<File>) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let piece = &buffer[..count];
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.bytes < MAX_FILE
                && let Some(kept) = &mut file
                && kept.write_all(piece).is_err()
            {
                // A full disk: the end is kept all the same.
                file = None;
            }
            state.bytes += count as u64;
            state.tail.extend(piece);
            let excess = state.tail.len().saturating_sub(OUTPUT_TAIL);
            state.tail.drain(..excess);
        }
    }

    /// The end, and the bytes of the whole.
    pub(super) fn now(&self) -> (String, u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = state.bytes;
        let mut tail = String::from_utf8_lossy(state.tail.make_contiguous()).into_owned();
        // Replaced bytes become longer.
        while tail.len() > OUTPUT_TAIL {
            let excess = tail.len() - OUTPUT_TAIL;
            let from = (excess..tail.len()).find(|&at| tail.is_char_boundary(at));
            tail.drain(..from.unwrap_or(tail.len()));
        }
        (tail, bytes)
    }

    /// Its last lines, which mostly say why a program failed.
    pub(super) fn last_words(&self) -> Option<String> {
        let (tail, _) = self.now();
        let lines: Vec<&str> = tail
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        let last = lines[from..].join("\n");
        (!last.is_empty()).then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_is_kept_in_memory_and_all_in_the_file() {
        let output = Output::default();
        let text: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
        let mut file = tempfile::tempfile().unwrap();
        output.read(text.as_bytes(), Some(file.try_clone().unwrap()));
        let (tail, bytes) = output.now();
        assert_eq!((bytes, tail.len()), (text.len() as u64, OUTPUT_TAIL));
        assert!(text.ends_with(&tail));
        assert!(output.last_words().unwrap().ends_with("line 19999"));
        let mut whole = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut whole).unwrap();
        assert_eq!(whole, text);
    }

    /// Says its last words some time after it could.
    struct Late(Option<&'static [u8]>);

    impl Read for Late {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(words) = self.0.take() else {
                return Ok(0);
            };
            std::thread::sleep(Duration::from_millis(300));
            buffer[..words.len()].copy_from_slice(words);
            Ok(words.len())
        }
    }

    #[test]
    fn last_words_that_are_read_late_are_waited_for() {
        let listening = Listening::start(Some(Late(Some(b"no license\n"))), None).unwrap();
        let heard = listening.to_the_end(Duration::from_mins(1)).last_words();
        assert_eq!(heard.as_deref(), Some("no license"));
    }

    #[test]
    fn output_that_somebody_keeps_open_is_not_waited_for_without_end() {
        let (from, _to) = io::pipe().unwrap();
        let listening = Listening::start(Some(from), None).unwrap();
        let heard = listening.to_the_end(Duration::from_millis(20)).last_words();
        assert_eq!(heard, None);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_within_the_limit() {
        let output = Output::default();
        output.read(vec![0xff; 3 * OUTPUT_TAIL].as_slice(), None);
        let (tail, bytes) = output.now();
        assert!(tail.len() <= OUTPUT_TAIL && tail.chars().all(|c| c == '\u{fffd}'));
        assert_eq!(bytes, 3 * OUTPUT_TAIL as u64);
        assert_eq!(Output::default().last_words(), None);
    }
}
