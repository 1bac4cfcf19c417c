// The page that `coord report` writes: a file that shows all its drawings and needs nothing else.

import assert from "node:assert/strict";
import { test } from "node:test";
import { assertClean, launch, open, scene } from "./look.mjs";

test("a report shows its drawings and loads nothing", async () => {
    const browser = await launch();
    try {
        const { page, notes } = await open(browser);
        await page.goto(scene.url);
        assertClean(notes, "a report");
        assert.deepEqual([...notes.requests].filter((url) => !url.startsWith("data:")), [scene.url]);
        assert.equal(await page.locator("svg").count(), scene.drawings);
    } finally {
        await browser.close();
    }
});
