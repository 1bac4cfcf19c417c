//! Live workers, and the chosen one in detail.

use super::parts::{Look, fit, lines, list_and_details, mark, window, wrapped};
use crate::commands::{
    top::state::State,
    workers::{Standing, memory},
};
use halfheard_progress::describe_worker;
use halfheard_shared::{text::plain, wire::Heartbeat};
use halfheard_store::{JobState, drained::title};
use ratatui::{Frame, layout::Rect, text::Line};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    if state.workers.is_empty() {
        let text = match state.broker {
            Some(_) => "the broker, which knows the workers, cannot be reached",
            None => "no worker lives; start one with `worker`",
        };
        return wrapped(frame, area, vec![Line::raw(text)]);
    }
    let (list, details) = list_and_details(area, 7);
    let chosen = state.worker_at();
    let wide = area.width >= 70;
    let mut rows = vec![Line::styled(heading(area.width, wide), look.faint())];
    let height = usize::from(list.height).saturating_sub(1);
    for index in window(state.workers.len(), chosen, height) {
        let beat = &state.workers[index];
        let style = look.state(match standing(state, beat) {
            Standing::Working => JobState::Running,
            Standing::Idle => JobState::Ready,
            Standing::Drained | Standing::Draining => JobState::Queued,
            Standing::SitsOut => JobState::Failed,
        });
        let style = if index == chosen {
            style.patch(look.chosen())
        } else {
            style
        };
        let text = row(state, beat, index == chosen, area.width, wide);
        rows.push(Line::styled(text, style));
    }
    lines(frame, list, rows);
    if details.height > 0
        && let Some(beat) = state.workers.get(chosen)
    {
        wrapped(frame, details, detail(state, beat));
    }
}

fn standing(state: &State, beat: &Heartbeat) -> Standing {
    Standing::of(beat, !state.drained(beat).is_empty())
}

fn name_width(width: u16, wide: bool) -> usize {
    usize::from(width).saturating_sub(3) * if wide { 3 } else { 5 } / 10
}

fn heading(width: u16, wide: bool) -> String {
    let name = fit("worker", name_width(width, wide));
    match wide {
        true => format!(
            "   {name} {:<9} {:>9} {:>8} doing",
            "state", "memory", "steps/s"
        ),
        false => format!("   {name} state"),
    }
}

fn row(state: &State, beat: &Heartbeat, chosen: bool, width: u16, wide: bool) -> String {
    let standing = standing(state, beat);
    let begin = format!(
        "{}{} {}",
        mark(chosen),
        standing.symbol(),
        fit(&beat.worker.name, name_width(width, wide))
    );
    if !wide {
        return format!("{begin} {}", standing.word());
    }
    let pace = state
        .paces
        .get(&beat.worker.name)
        .and_then(|pace| pace.per_second);
    let pace = pace.map_or_else(String::new, |pace| format!("{pace:.1}"));
    let doing = beat
        .doing
        .as_ref()
        .map_or_else(String::new, |doing| plain(&doing.what));
    format!(
        "{begin} {:<9} {:>9} {pace:>8} {doing}",
        standing.word(),
        memory(beat)
    )
}

fn detail(state: &State, beat: &Heartbeat) -> Vec<Line<'static>> {
    let worker = &beat.worker;
    let mut text = vec![
        String::new(),
        format!("{}: {}", plain(&worker.name), plain(&describe_worker(beat))),
        format!(
            "{}, {}, version {}",
            plain(&worker.host),
            plain(&worker.device),
            plain(&worker.version)
        ),
    ];
    if !beat.labels.is_empty() {
        text.push(format!("labels {}", plain(&beat.labels.join(", "))));
    }
    if let (Some(since), Some(_)) = (state.picture.since.get(&worker.name), &beat.doing) {
        text.push(format!(
            "at it since {}",
            since.format("%Y-%m-%d %H:%M:%S UTC")
        ));
    }
    for name in state.drained(beat) {
        text.push(format!(
            "drained as {} by {} since {}",
            title(&name.worker),
            plain(&name.by),
            name.since.format("%Y-%m-%d %H:%M UTC")
        ));
    }
    text.into_iter().map(Line::raw).collect()
}
