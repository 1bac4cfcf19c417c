// A sweep driven through the page alone, as an operator would: paused before its workers come, given a priority, resumed,
// watched without reloading, a failed job retried, a worker drained.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { PATIENCE, assertClean, assertReadable, launch, open, scene } from "./look.mjs";

let browser, context, page, notes, map;

before(async () => {
    browser = await launch();
    ({ context, page, notes } = await open(browser));
});
after(() => browser?.close());

const main = () => page.locator("main");
const button = (name) => main().getByRole("button", { name }).first();

/** Waits, without reloading, until the page's text matches. */
const shows = (pattern, what) => main().filter({ hasText: pattern }).waitFor({ timeout: PATIENCE }).catch(async () => {
    assert.fail(`${what}: ${pattern} does not appear in:\n${await main().innerText()}`);
});

/** The states of the map's training cells, by what their names say. */
const cells = () => main().getByRole("table").first().locator('a[href*="/trainings/"]').evaluateAll((all) => all.map((e) => `${e.getAttribute("aria-label") ?? ""} ${e.innerText}`));

test("the sweep is paused and given a priority before anybody works on it", async () => {
    await page.goto(scene.url);
    await main().getByRole("link", { name: "demo" }).first().click();
    await page.waitForURL(/\/sweeps\//);
    map = page.url();
    await button(/^pause/i).click();
    await shows(/paused/i, "a click on Pause");
    const priority = main().getByLabel(/priority/i).first();
    await priority.fill("7");
    await priority.press("Enter");
    await shows(/priority\D*7/i, "a priority");
    writeFileSync(scene.begin, "");
    await page.goto(new URL("/workers", scene.url).href);
    for (const worker of scene.workers) await shows(new RegExp(worker), "a worker that comes is shown");
    await page.goto(map);
    const states = await cells();
    assert.ok(states.length >= 3 && states.every((state) => !/running|done|trained/.test(state)), `nothing begins in a paused sweep: ${states}`);
    await assertReadable(page, "a paused sweep");
    assertClean(notes, "a paused sweep");
});

test("resumed, it fills the map without a reload", async () => {
    await page.goto(map);
    await page.evaluate(() => { window.sameDocument = true; });
    await button(/^resume/i).click();
    // A form without script answers with the page again; what counts is what follows.
    await page.waitForLoadState();
    await page.evaluate(() => { window.sameDocument = true; });
    const before = (await cells()).join("\n");
    const since = Date.now();
    while ((await cells()).join("\n") === before) {
        assert.ok(Date.now() - since < PATIENCE, `no cell changes: ${before}`);
        await page.waitForTimeout(100);
    }
    await shows(/failed/i, "the program's failure");
    const all = () => cells().then((states) => states.filter((state) => /done/.test(state)).length);
    while ((await all()) < 2) {
        assert.ok(Date.now() - since < PATIENCE, `not done: ${await cells()}`);
        await page.waitForTimeout(100);
    }
    assert.equal(await page.evaluate(() => window.sameDocument), true, "the page was loaded again");
    assertClean(notes, "a live map");
});

test("curves of a training are there", async () => {
    await page.goto(map);
    await main().getByRole("table").first().locator('a[href*="/trainings/"]').first().click();
    await page.waitForURL(/\/trainings\//);
    assert.ok((await main().locator("svg").count()) > 0, "curves");
    await assertReadable(page, "a training");
    assertClean(notes, "a training");
});

test("a failure is explained, and its retry completes the sweep", async () => {
    await page.goto(map);
    await main().getByRole("link", { name: /fail/i }).first().click();
    await shows(/the license server does not answer/, "the program's last words");
    writeFileSync(scene.flag, "");
    await button(/retry/i).click();
    await page.waitForLoadState();
    await page.goto(scene.url);
    await shows(new RegExp(`${scene.jobs} of ${scene.jobs}`), "the end of the sweep");
    await page.goto(map);
    assert.ok((await cells()).every((state) => /done/.test(state)), `${await cells()}`);
    assertClean(notes, "a retry");
});

test("results are there when the sweep is done", async () => {
    await page.goto(map);
    await main().getByRole("link", { name: /results/i }).first().click();
    await page.waitForURL(/\/results/);
    await shows(/almt/i, "results");
    assert.match(await main().innerText(), /\d\.\d\d/, "numbers");
    await assertReadable(page, "results");
    assertClean(notes, "results");
});

test("a worker is drained and comes back", async () => {
    await page.goto(new URL("/workers", scene.url).href);
    const row = () => main().locator("tr").filter({ hasText: scene.workers[0] });
    await row().getByRole("button", { name: /^drain/i }).first().click();
    await row().filter({ hasText: /drained/i }).waitFor();
    await row().getByRole("button", { name: /^undrain/i }).first().click();
    await row().getByRole("button", { name: /^drain/i }).first().waitFor();
    assertClean(notes, "a drained worker");
    await context.close();
});
