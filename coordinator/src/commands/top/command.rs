//! The command: the terminal, and what connects keys, readers and drawings.

use super::{
    act::act,
    draw::{Look, draw},
    load,
    state::{Action, Quit, State},
    update::{Event, update},
};
use crate::{config::Settings, exit::Exit, local::Database};
use chrono::Utc;
use crossterm::event::{Event as Input, EventStream};
use futures::StreamExt as _;
use halfheard_shared::{
    color,
    error::{chain, hinted},
    shutdown::Shutdown,
};
use halfheard_store::Store;
use std::{io::IsTerminal as _, process::ExitCode, time::Duration};
use tokio::{
    sync::{
        mpsc::{self, Receiver, Sender},
        watch,
    },
    task::JoinSet,
};

/// How often the clock moves on.
const TICK: Duration = Duration::from_secs(1);
/// The most events that wait to be drawn.
const WAITING: usize = 64;

/// Arguments of `coord top`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Keys: tab and 1-5 switch between sweeps, map, workers, training and failures; arrows or hjkl choose;
enter opens, esc goes back; p pauses, r resumes, R runs failed jobs again, + and - change the
priority, d drains a worker; ? help, q quit. Whatever changes something asks first.

Numbers on the map are the mean MAE over the missing rates. Without a terminal: `coord status --json`
and `coord workers --json`. On a telephone: the page of `coord serve --http`.

Examples:
  coord top             all sweeps
  coord top demo        one sweep as a map")]
pub(crate) struct TopArgs {
    /// The sweep to begin with: its name, its id, or a prefix of its id
    sweep: Option<String>,
}

/// Shows what goes on in a terminal until `q`.
///
/// # Errors
///
/// There is no terminal; the sweep is unknown; the database cannot be opened. Once it shows something, it
/// waits outages out.
pub(crate) async fn run(args: TopArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    if settings.json || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(hinted(
            "`coord top` needs a terminal",
            "in a script or a pipe, use `coord status --json` and `coord workers --json`",
        )
        .into());
    }
    let database = Database::open(settings).await?;
    let outcome = open(&args, settings, &database).await;
    database.close().await;
    Ok(match outcome? {
        Quit::Asked => ExitCode::SUCCESS,
        Quit::Interrupted => Exit::Interrupted.into(),
    })
}

async fn open(args: &TopArgs, settings: &Settings, store: &Store) -> anyhow::Result<Quit> {
    let sweep = match &args.sweep {
        Some(text) => Some(store.find_sweep(text).await?.id),
        None => None,
    };
    let state = State::new(sweep, Utc::now());
    let (sender, events) = mpsc::channel(WAITING);
    let (wish, wished) = watch::channel(state.wish());
    let (beats, workers) = watch::channel(Vec::new());
    // Dropped at the end, which stops them.
    let mut tasks = JoinSet::new();
    tasks.spawn(load::database(
        store.clone(),
        wished,
        workers,
        sender.clone(),
    ));
    tasks.spawn(load::broker(settings.clone(), beats, sender.clone()));
    tasks.spawn(listen(
        Shutdown::on_signals(Exit::Interrupted.code())?,
        sender.clone(),
    ));
    let screen = Screen {
        state,
        look: Look {
            color: color::stdout(),
        },
        store,
        events,
        sender,
        tasks,
    };
    // Also after a panic, by its hook.
    let terminal = ratatui::try_init()?;
    let outcome = screen.run(terminal, &wish).await;
    ratatui::restore();
    outcome
}

/// Sends keys, signals and the time until nobody listens.
async fn listen(shutdown: Shutdown, events: Sender<Event>) {
    let mut keys = EventStream::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        let event = tokio::select! {
            () = shutdown.requested() => Event::Interrupt,
            _ = tick.tick() => Event::Tick,
            key = keys.next() => match key {
                Some(Ok(Input::Key(key))) => Event::Key(key),
                // Drawn anew in the new size.
                Some(Ok(_)) => Event::Tick,
                // The terminal is gone.
                Some(Err(_)) | None => Event::Interrupt,
            },
        };
        let is_last = matches!(event, Event::Interrupt);
        if events.send(event).await.is_err() || is_last {
            return;
        }
    }
}

struct Screen<'a> {
    state: State,
    look: Look,
    store: &'a Store,
    events: Receiver<Event>,
    sender: Sender<Event>,
    tasks: JoinSet<()>,
}

impl Screen<'_> {
    async fn run(
        mut self,
        mut terminal: ratatui::DefaultTerminal,
        wish: &watch::Sender<super::state::Wish>,
    ) -> anyhow::Result<Quit> {
        loop {
            terminal.draw(|frame| draw(frame, &self.state, self.look))?;
            let Some(event) = self.events.recv().await else {
                anyhow::bail!("nothing happens any more");
            };
            self.take(event);
            // What has come meanwhile is drawn at once.
            while let Ok(event) = self.events.try_recv() {
                self.take(event);
            }
            if let Some(quit) = self.state.quit {
                return Ok(quit);
            }
            wish.send_if_modified(|wish| {
                let changed = *wish != self.state.wish();
                *wish = self.state.wish();
                changed
            });
            // A task that ended by itself panicked, which its hook has printed.
            while let Some(ended) = self.tasks.try_join_next() {
                ended?;
            }
        }
    }

    fn take(&mut self, event: Event) {
        if let Some(action) = update(&mut self.state, event, Utc::now()) {
            self.start(action);
        }
    }

    /// Does what was confirmed beside the drawing: the database may take long to answer.
    fn start(&mut self, action: Action) {
        let (store, sender) = (self.store.clone(), self.sender.clone());
        self.tasks.spawn(async move {
            let done = act(&store, action).await;
            let done = done.map_err(|error| chain(error.as_ref()));
            // Nobody listens any more at the end.
            let _ = sender.send(Event::Done(done)).await;
        });
    }
}
