//! A program in a terminal of its own, driven by keys and read from its screen.

use anyhow::{Result, bail, ensure};
use nix::libc;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{FromRawFd as _, OwnedFd},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::programs::Process;

/// A program and its terminal.
#[derive(Debug)]
pub struct Terminal {
    pub process: Process,
    keys: File,
    screen: Arc<Mutex<Screen>>,
}

impl Terminal {
    /// Starts a program in a terminal of this size.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: both descriptors are written before they are read, and the name and the modes may be null.
        let opened = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        ensure!(
            opened == 0,
            "no terminal: {}",
            std::io::Error::last_os_error()
        );
        // SAFETY: `openpty` has just opened them, and nobody else has them.
        let (master, slave) =
            unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        command
            .env("TERM", "xterm-256color")
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave);
        let process = Process::spawn(&mut command)?;
        // The command holds the program's end, and the screen would never end.
        drop(command);
        let keys = File::from(master);
        let screen = Arc::new(Mutex::new(Screen::new(columns.into(), rows.into())));
        let (mut output, shown) = (keys.try_clone()?, screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                lock(&shown).take(&buffer[..read]);
            }
        });
        Ok(Self {
            process,
            keys,
            screen,
        })
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    /// What is on the screen.
    pub fn shown(&self) -> String {
        lock(&self.screen).text()
    }

    /// Everything that was written, escapes included.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&lock(&self.screen).raw).into_owned()
    }

    /// Waits until the screen is as `enough` wants it.
    pub fn until(&self, what: &str, enough: impl Fn(&str) -> bool) -> Result<String> {
        let since = Instant::now();
        loop {
            let shown = self.shown();
            if enough(&shown) {
                return Ok(shown);
            }
            if since.elapsed() > crate::PATIENCE {
                bail!("never shown: {what}; the screen:\n{shown}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the screen has this text.
    pub fn shows(&self, text: &str) -> Result<String> {
        self.until(text, |shown| shown.contains(text))
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As much of a terminal as drawings need: text, the cursor's place, and clearing.
#[derive(Debug)]
struct Screen {
    raw: Vec<u8>,
    /// How much of `raw` is on the cells.
    taken: usize,
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            raw: Vec::new(),
            taken: 0,
            cells: vec![vec![' '; columns]; rows],
            row: 0,
            column: 0,
        }
    }

    fn text(&self) -> String {
        let lines = self.cells.iter().map(|row| row.iter().collect::<String>());
        let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    /// Takes bytes; what is cut in the middle waits for the rest.
    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        let rest = self.raw[self.taken..].to_vec();
        let text = match std::str::from_utf8(&rest) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(),
        };
        let mut letters = text.char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            if letter != '\x1b' {
                self.put(letter);
                self.taken += letter.len_utf8();
                continue;
            }
            let escape = &text[at..];
            let Some(length) = escape_length(escape) else {
                return;
            };
            self.obey(&escape[..length]);
            self.taken += length;
            while letters.peek().is_some_and(|(next, _)| *next < at + length) {
                letters.next();
            }
        }
    }

    fn put(&mut self, letter: char) {
        match letter {
            '\r' => self.column = 0,
            '\n' => self.row += 1,
            _ => {
                if let Some(cell) = self
                    .cells
                    .get_mut(self.row)
                    .and_then(|row| row.get_mut(self.column))
                {
                    *cell = letter;
                }
                self.column += 1;
            }
        }
    }

    fn obey(&mut self, escape: &str) {
        let Some(body) = escape.strip_prefix("\x1b[") else {
            return;
        };
        if let Some(place) = body.strip_suffix('H') {
            let mut numbers = place.split(';').map(|number| number.parse().unwrap_or(1));
            self.row = numbers.next().unwrap_or(1_usize).saturating_sub(1);
            self.column = numbers.next().unwrap_or(1_usize).saturating_sub(1);
        } else if body == "2J" {
            self.cells.iter_mut().for_each(|row| row.fill(' '));
        }
    }
}

/// The bytes of the escape sequence that begins here; nothing if it is cut.
fn escape_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(1)? {
        b'[' => {
            let is_end = |byte: &u8| (0x40..=0x7e).contains(byte);
            bytes[2..].iter().position(is_end).map(|at| at + 3)
        }
        _ => Some(2),
    }
}
