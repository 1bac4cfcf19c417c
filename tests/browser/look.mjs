// The browser, and what is asked of every page: nothing from elsewhere, nothing in the console, text that can be read, a
// body that fits a telephone, a focus that can be seen.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

/** Where install.sh put the browser. */
const home = process.env.HALFHEARD_BROWSER;
const { chromium } = createRequire(join(home, "package.json"))("playwright-core");

/** What the scene is: set by whoever starts it. */
export const scene = JSON.parse(process.env.HALFHEARD_SCENE);

/** How long anything may take on a busy machine, in milliseconds. */
export const PATIENCE = 120_000;

export const DESK = { width: 1280, height: 900 };
export const PHONE = { width: 390, height: 844 };

/** Starts the pinned Chromium with the pinned fonts, or the one that HALFHEARD_CHROMIUM names. */
export async function launch() {
    const own = process.env.HALFHEARD_CHROMIUM;
    const libraries = [join(home, "chromium/lib"), process.env.LD_LIBRARY_PATH].filter(Boolean).join(":");
    const env = own ? process.env : { ...process.env, LD_LIBRARY_PATH: libraries, FONTCONFIG_FILE: join(home, "fonts.conf"), XDG_CACHE_HOME: join(home, "cache") };
    const executablePath = own ?? join(home, "chromium/chromium");
    assert.ok(existsSync(executablePath), `missing ${executablePath}`);
    // Chromium's own sandbox needs what containers and root do not have; it sees this project's pages alone.
    return chromium.launch({ executablePath, env, chromiumSandbox: false, args: ["--font-render-hinting=none"] });
}

/** A page of its own that notes every request, answer, message and dialog. */
export async function open(browser, options = {}) {
    const context = await browser.newContext({ viewport: DESK, ...options });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    const notes = { requests: new Set(), problems: [] };
    page.on("request", (request) => notes.requests.add(request.url()));
    page.on("dialog", (dialog) => {
        notes.problems.push(`dialog: ${dialog.message()}`);
        dialog.dismiss();
    });
    page.on("pageerror", (error) => notes.problems.push(`script: ${error.message}`));
    page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) notes.problems.push(`console: ${message.text()} (${message.location().url})`);
    });
    page.on("requestfailed", (request) => {
        const why = request.failure()?.errorText;
        // Leaving a page ends its stream of events and what it was about to ask for.
        if (why !== "net::ERR_ABORTED") notes.problems.push(`request: ${request.url()}: ${why}`);
    });
    page.on("response", (response) => {
        if (response.status() >= 400) notes.problems.push(`answer: ${response.url()}: ${response.status()}`);
    });
    return { context, page, notes };
}

/** Asserts that everything was loaded from the scene's server, and that nothing went wrong since the last call. */
export function assertClean(notes, where) {
    const { origin } = new URL(scene.url);
    const elsewhere = [...notes.requests].filter((url) => !url.startsWith("data:") && new URL(url).origin !== origin);
    assert.deepEqual(elsewhere, [], `${where} loads from elsewhere`);
    assert.deepEqual(notes.problems.splice(0), [], where);
}

/** Asserts the headers without which a page may not be served. */
export function assertHeaders(response, where) {
    const headers = response.headers();
    const policy = new Map(
        (headers["content-security-policy"] ?? "").split(";").map((part) => {
            const [name, ...sources] = part.trim().split(/\s+/);
            return [name, sources];
        }),
    );
    assert.deepEqual(policy.get("default-src"), ["'none'"], `${where}: ${headers["content-security-policy"]}`);
    for (const [name, sources] of policy) {
        const allowed = name === "img-src" ? ["'self'", "'none'", "data:"] : ["'self'", "'none'"];
        for (const source of sources) assert.ok(allowed.includes(source), `${where}: ${name} allows ${source}`);
    }
    for (const name of ["base-uri", "frame-ancestors", "form-action"]) assert.ok(policy.has(name), `${where}: no ${name}`);
    assert.equal(headers["x-content-type-options"], "nosniff", where);
    // No address of a page reaches another site.
    assert.match(headers["referrer-policy"] ?? "", /^(no-referrer|same-origin)$/, where);
}

/** Asserts what holds for every page, as it is shown now. */
export async function assertReadable(page, where) {
    const { hacked, controls, faint, wide, unnamed, headings, running } = await page.evaluate(examine);
    assert.equal(hacked, undefined, `${where}: foreign script ran`);
    assert.deepEqual(controls, [], `${where}: control characters are shown`);
    assert.deepEqual(faint, [], `${where}: contrast below 4.5`);
    assert.deepEqual(wide, [], `${where}: the page scrolls sideways`);
    assert.deepEqual(unnamed, [], `${where}: without a name for screen readers`);
    assert.equal(headings, 1, `${where}: level-one headings`);
    assert.deepEqual(running, [], `${where}: animations that reduced motion should still`);
}

/** Runs in the page. */
function examine() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    /** Any CSS color as [red, green, blue, alpha], the last from 0 to 1. */
    const parse = (color) => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], [x, y, z]) => [a * r + (1 - a) * x, a * g + (1 - a) * y, a * b + (1 - a) * z, 1];
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const behind = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
        return layers.reduce((below, layer) => over(layer, below), dark ? [18, 18, 18, 1] : [255, 255, 255, 1]);
    };
    const luminance = (color) => {
        const [r, g, b] = color.slice(0, 3).map((value) => {
            const c = value / 255;
            return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (one, other) => {
        const [light, less] = [luminance(one), luminance(other)].sort((a, b) => b - a);
        return (light + 0.05) / (less + 0.05);
    };
    const describe = (element) => `<${element.localName} class="${element.getAttribute("class") ?? ""}"> ${(element.textContent ?? "").trim().slice(0, 40)}`;

    const faint = new Set();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
        const element = text.parentElement;
        if (!text.data.trim() || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || element.closest("script, style, title, :disabled")) continue;
        const range = document.createRange();
        range.selectNodeContents(text);
        const { width, height } = range.getBoundingClientRect();
        if (width < 2 || height < 2) continue;
        const style = getComputedStyle(element);
        let opacity = 1;
        for (let e = element; e; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
        const [r, g, b, a] = parse(element.closest("svg") ? style.fill : style.color);
        const below = behind(element);
        const ratio = contrast(over([r, g, b, a * opacity], below), below);
        if (ratio < 4.5) faint.add(`${describe(element)}: ${ratio.toFixed(2)}`);
    }

    const shown = document.body.innerText;
    const controls = [...new Set(shown.match(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g) ?? [])];
    const root = document.scrollingElement;
    const wide = [];
    if (root.scrollWidth > root.clientWidth) {
        wide.push(`${root.scrollWidth} > ${root.clientWidth}`);
        const inScroller = (element) => {
            for (let e = element.parentElement; e && e !== document.body; e = e.parentElement) {
                if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(e).overflowX)) return true;
            }
            return false;
        };
        for (const element of document.body.querySelectorAll("*")) {
            if (element.getBoundingClientRect().right > root.clientWidth + 1 && !inScroller(element)) wide.push(describe(element));
        }
    }
    const name = (element) => [element.getAttribute("aria-label"), element.getAttribute("title"), element.getAttribute("alt"), element.textContent, element.querySelector("img[alt]")?.alt, element.labels?.[0]?.textContent, element.getAttribute("aria-labelledby")].some((text) => text?.trim());
    const unnamed = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, img, svg[role=img]")].filter((e) => !name(e)).map((e) => e.outerHTML.slice(0, 120));
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const running = still ? document.getAnimations().filter((a) => a.playState === "running").map((a) => describe(a.effect.target)) : [];
    return { hacked: window.hacked, controls, faint: [...faint], wide: wide.slice(0, 8), unnamed, headings: document.querySelectorAll("h1").length, running };
}

/** Presses Tab from the top of the page until the focus leaves it, and returns what had it, in order. */
export async function tabStops(page, max = 400) {
    const stops = [];
    while (stops.length < max) {
        await page.keyboard.press("Tab");
        const stop = await page.evaluate(() => {
            const element = document.activeElement;
            if (!element || element === document.body) return null;
            const style = getComputedStyle(element);
            const box = element.getBoundingClientRect();
            const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
            const before = window.stopBefore;
            window.stopBefore = element;
            return {
                what: `<${element.localName}> ${(element.getAttribute("aria-label") ?? element.textContent ?? "").trim().slice(0, 60)}`,
                href: element.getAttribute("href"),
                visible: (outlined || style.boxShadow !== "none") && box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
                inOrder: !before || Boolean(before.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING),
            };
        });
        if (!stop || (stops.length > 0 && !stop.inOrder)) break;
        stops.push(stop);
    }
    return stops;
}
