// Every page that can be reached, of sweeps in all states with hostile names: on a desk in light colors, on a telephone in
// dark ones, by keyboard alone, and without scripts.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DESK, PHONE, assertClean, assertHeaders, assertReadable, launch, open, scene, tabStops } from "./look.mjs";

let browser;
/** Addresses of pages and of what is no page, as the crawl finds them. */
let found;

before(async () => {
    browser = await launch();
});
after(() => browser?.close());

/** The kind of a page: its address without what differs from one sweep, job or table to the next. */
function kind(url) {
    const { pathname, searchParams } = new URL(url);
    const path = pathname.replace(/[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32,64}/g, ":id").replace(/\/(workers|tables|figures)\/[^/]+/, "/$1/:name");
    return `${path}?${[...searchParams.keys()].sort().join("&")}`;
}

/** Follows links from the list of sweeps, to at most `each` pages of a kind. */
async function crawl(each) {
    const { context, page, notes } = await open(browser, { colorScheme: "light", viewport: DESK });
    const seen = new Map();
    const queue = [scene.url];
    const pages = [];
    const files = [];
    while (queue.length > 0) {
        const url = queue.shift();
        const kinds = seen.get(kind(url)) ?? new Set();
        if (kinds.has(url) || kinds.size >= each) continue;
        seen.set(kind(url), kinds.add(url));
        const answer = await context.request.get(url);
        assert.equal(answer.status(), 200, url);
        assertHeaders(answer, url);
        if (!answer.headers()["content-type"].startsWith("text/html")) {
            files.push(url);
            continue;
        }
        await page.goto(url);
        await assertReadable(page, url);
        assertClean(notes, url);
        pages.push(url);
        const links = await page.locator("a[href], img[src]").evaluateAll((all) => all.map((e) => e.href ?? e.src));
        for (const link of links) {
            const { origin, protocol } = new URL(link);
            if (protocol === "data:") continue;
            assert.equal(origin, new URL(scene.url).origin, `${url} links elsewhere`);
            queue.push(link.replace(/#.*/, ""));
        }
    }
    await context.close();
    return { pages, files };
}

test("every page opens, loads nothing from elsewhere, and can be read", async () => {
    found = await crawl(3);
    const kinds = new Set(found.pages.map(kind));
    console.log(`${found.pages.length} pages of ${kinds.size} kinds, ${found.files.length} files: ${[...kinds].join(" ")}`);
    for (const path of ["/?", "/sweeps/:id?", "/sweeps/:id/results?", "/sweeps/:id/failures?", "/trainings/:id?", "/workers?", "/failures?"]) {
        assert.ok(kinds.has(path), `no link leads to ${path}`);
    }
});

test("on a telephone in the dark nothing scrolls sideways, and motion is stilled", async () => {
    const { context, page, notes } = await open(browser, { colorScheme: "dark", reducedMotion: "reduce", viewport: PHONE, isMobile: true, hasTouch: true });
    for (const url of found.pages) {
        await page.goto(url);
        await assertReadable(page, `${url} on a telephone`);
        const background = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor + getComputedStyle(document.body).backgroundColor);
        assert.ok(!background.includes("rgb(255, 255, 255)"), `${url} is white in the dark`);
    }
    assertClean(notes, "a telephone");
    await context.close();
});

test("hostile text is shown as text", async () => {
    const { context, page, notes } = await open(browser);
    const { hostile } = scene;
    for (const path of hostile.pages) {
        await page.goto(new URL(path, scene.url).href);
        const text = await page.locator("body").innerText();
        assert.ok(text.includes(hostile.shown), `${path} does not show ${hostile.shown}:\n${text.slice(0, 2000)}`);
    }
    for (const url of found.pages) {
        await page.goto(url);
        const foreign = await page.locator('img[src="x"], script:not([src]), [onerror], [onload], [onclick], [style*="url("]').count();
        assert.equal(foreign, 0, `${url} has foreign elements`);
        assert.doesNotMatch(await page.title(), /[\u0000-\u001f\u202a-\u202e]/, url);
    }
    assertClean(notes, "hostile text");
    await context.close();
});

test("a cell of the map leads to its training with curves, and its states differ without color", async () => {
    const { context, page, notes } = await open(browser);
    await page.goto(new URL(scene.states.map, scene.url).href);
    const map = page.getByRole("table").first();
    await map.waitFor();
    // What is seen without color: text, or a symbol in it.
    const shown = new Map();
    for (const [state, job] of Object.entries(scene.states.jobs)) {
        const link = map.locator(`a[href$="/trainings/${job}"]`);
        assert.equal(await link.count(), 1, `the training job that is ${state} has a cell`);
        const [name, text] = await link.evaluate((cell) => {
            const name = `${cell.getAttribute("aria-label") ?? ""} ${cell.textContent}`;
            // Read out, but clipped away.
            const clipped = [...cell.querySelectorAll("*")].filter((part) => part.getBoundingClientRect().width <= 1);
            return [name, clipped.reduce((text, part) => text.replace(part.textContent, ""), cell.textContent).trim()];
        });
        assert.ok(text, `a cell that is ${state} has neither text nor symbol`);
        assert.match(name.toLowerCase(), state === "done" ? /done|trained/ : new RegExp(state), "its name says the state");
        shown.set(state, text.replace(/[\d.,%/ ]+/g, "#"));
    }
    assert.equal(new Set(shown.values()).size, shown.size, `states look alike without color: ${JSON.stringify([...shown])}`);

    await page.goto(new URL(scene.finished.map, scene.url).href);
    const cell = page.getByRole("table").first().locator('a[href*="/trainings/"]').first();
    const number = await page.getByRole("table").first().innerText();
    assert.match(number, /\d\.\d/, "cells that are done show their number");
    await cell.click();
    await page.waitForURL(/\/trainings\//);
    const curves = page.locator("main svg, main figure img");
    assert.ok((await curves.count()) >= 2, "losses and validation metrics are drawn");
    const { width, height } = await curves.first().boundingBox();
    assert.ok(width > 100 && height > 40, `a curve of ${width} by ${height}`);
    assertClean(notes, "the map");
    await context.close();
});

test("the keyboard alone reaches the map and a training", async () => {
    const { context, page } = await open(browser);
    for (const path of ["/", scene.states.map, "/workers", "/failures"]) {
        await page.goto(new URL(path, scene.url).href);
        const stops = await tabStops(page);
        assert.match(stops[0].what, /skip/i, `${path}: the first stop skips to the content`);
        const hidden = stops.filter((stop) => !stop.visible).map((stop) => stop.what);
        assert.deepEqual(hidden, [], `${path}: a focus that cannot be seen`);
    }
    await page.goto(new URL(scene.states.map, scene.url).href);
    for (let presses = 0; presses < 100; presses++) {
        await page.keyboard.press("Tab");
        if (await page.evaluate(() => document.activeElement.matches('table a[href*="/trainings/"]'))) break;
    }
    const first = await page.evaluate(() => document.activeElement.getAttribute("href"));
    assert.match(first ?? "", /\/trainings\//, "Tab reaches the map");
    await page.keyboard.press("Enter");
    await page.waitForURL(`**${first}`);
    await context.close();
});

test("without scripts the pages say the same", async () => {
    const { context, page } = await open(browser, { javaScriptEnabled: false });
    const { context: withScripts, page: other } = await open(browser);
    const text = (page) => page.locator("main h1, main th, main h2").allInnerTexts();
    for (const path of ["/", scene.finished.map, scene.finished.results]) {
        const url = new URL(path, scene.url).href;
        await Promise.all([page.goto(url), other.goto(url)]);
        assert.deepEqual(await text(page), await text(other), path);
    }
    await context.close();
    await withScripts.close();
});

test("what does not exist is said to be missing", async () => {
    const { context } = await open(browser);
    for (const path of ["/nothing", "/sweeps/00000000-0000-0000-0000-000000000000", "/trainings/not-a-job", "/sweeps/%3Cscript%3E/results"]) {
        const answer = await context.request.get(new URL(path, scene.url).href);
        assert.ok([400, 404].includes(answer.status()), `${path}: ${answer.status()}`);
        assertHeaders(answer, path);
        assert.ok(!(await answer.text()).includes("<script>"), path);
    }
    await context.close();
});

test("a page that may only be read has no buttons, and refuses changes", async () => {
    const { context, page } = await open(browser);
    for (const path of ["/", scene.states.map, "/workers", "/failures"]) {
        await page.goto(new URL(path, scene.url).href);
        assert.equal(await page.locator('form[method="post" i]').count(), 0, `${path} has a form that changes something`);
    }
    const answer = await context.request.post(new URL(`${scene.states.map}/pause`, scene.url).href, { headers: { origin: new URL(scene.url).origin } });
    assert.equal(answer.status(), 403);
    await context.close();
});

test("what is checked of every page is noticed where it is planted", async () => {
    const { context, page } = await open(browser, { reducedMotion: "reduce", viewport: PHONE });
    const faults = {
        contrast: '<p style="color: #999; background: #fff">pale</p>',
        "control characters": "<p>one \u202e two</p>",
        sideways: '<p style="width: 500px">wide</p>',
        "screen readers": "<button></button>",
        "level-one": "<h1>second</h1>",
        animations: "<style>@keyframes a { to { opacity: 0.9 } } p { animation: a 1s infinite }</style><p>moves</p>",
        "foreign script": "<script>window.hacked = 1</script>",
    };
    for (const [what, fault] of Object.entries({ none: "", ...faults })) {
        await page.setContent(`<!doctype html><html lang="en"><title>t</title><h1>first</h1>${fault}</html>`);
        const said = await assertReadable(page, "planted").then(() => "", (error) => error.message);
        if (what === "none") assert.equal(said, "");
        else assert.match(said, new RegExp(what), what);
        // The next document shares this one's window.
        await page.evaluate(() => delete window.hacked);
    }
    await context.close();
});
