//! What several drawings share.

pub(super) use crate::commands::top::text::{fit, window};

use crate::commands::top::map::symbol;
use halfheard_store::JobState;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Paragraph, Wrap},
};

/// Whether there are colors.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands::top) struct Look {
    pub(in crate::commands::top) color: bool,
}

impl Look {
    fn fg(self, color: Color) -> Style {
        match self.color {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    /// What is chosen.
    pub(super) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Headings and what matters less.
    pub(super) fn faint(self) -> Style {
        match self.color {
            true => Style::new().add_modifier(Modifier::DIM),
            false => Style::new(),
        }
    }

    /// Something is wrong.
    pub(super) fn alarm(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// A job's state.
    pub(super) fn state(self, state: JobState) -> Style {
        match state {
            JobState::Done => self.fg(Color::Green),
            JobState::Failed => self.fg(Color::Red),
            JobState::Running => self.fg(Color::Cyan),
            JobState::Queued => self.fg(Color::Yellow),
            JobState::Blocked | JobState::Ready | JobState::Cancelled => self.faint(),
        }
    }
}

/// `✓ done`.
pub(super) fn worded(state: JobState) -> String {
    format!("{} {state}", symbol(state))
}

/// A list above details of what is chosen in it, which are left out where there is no room.
pub(super) fn list_and_details(area: Rect, details: u16) -> (Rect, Rect) {
    let details = if area.height >= details + 5 {
        details
    } else {
        0
    };
    let [list, below] =
        Layout::vertical([Constraint::Min(1), Constraint::Length(details)]).areas(area);
    (list, below)
}

/// Lines that are cut at the right.
pub(super) fn lines(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines), area);
}

/// Lines that are wrapped.
pub(super) fn wrapped(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

/// `>` before what is chosen.
pub(super) fn mark(chosen: bool) -> char {
    if chosen { '>' } else { ' ' }
}
