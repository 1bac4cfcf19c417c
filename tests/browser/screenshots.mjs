// Pictures of the page for the documentation.

import { statSync } from "node:fs";
import { join } from "node:path";
import { PHONE, launch, open, scene } from "./look.mjs";

const desk = { viewport: { width: 1100, height: 700 }, colorScheme: "light" };
const phone = { viewport: PHONE, colorScheme: "dark", isMobile: true, hasTouch: true };
const browser = await launch();

/** Takes a picture of at most `height` pixels of what `look` leads to. */
async function take(name, options, height, look) {
    const { context, page } = await open(browser, options);
    await page.goto(new URL(scene.map, scene.url).href);
    await look(page);
    await page.waitForLoadState("load");
    // What is said once the first events have come.
    await page.waitForTimeout(2000);
    const path = join(scene.images, `page-${name}.png`);
    const { width } = options.viewport;
    const whole = await page.evaluate(() => document.body.scrollHeight);
    const top = await page.evaluate(() => scrollY);
    await page.screenshot({ path, fullPage: true, animations: "disabled", clip: { x: 0, y: top, width, height: Math.min(height, whole - top) } });
    console.log(`${path}: ${Math.round(statSync(path).size / 1000)} kB`);
    await context.close();
}

const follow = (name) => (page) => page.getByRole("link", { name, exact: true }).first().click();
await take("sweeps", desk, 420, (page) => page.goto(scene.url));
await take("map", desk, 900, async () => {});
await take("training", desk, 1400, async (page) => {
    await page.getByRole("table").first().locator('a[href*="/trainings/"]').first().click();
    await page.waitForURL(/\/trainings\//);
});
await take("results", desk, 900, follow("Results"));
await take("failures", desk, 700, follow("Failures"));
await take("workers", desk, 600, follow("Workers"));
await take("phone", phone, PHONE.height, (page) => page.getByRole("table").first().evaluate((table) => table.scrollIntoView({ block: "end" })));
await browser.close();
