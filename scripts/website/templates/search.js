// The search of the pages: sections in which all words occur, those with a word in their heading first.
"use strict";

(() => {
    const MOST = 30, BEFORE = 60, LENGTH = 220;
    const form = document.getElementById("search"), panel = document.getElementById("results");
    const field = form.elements.namedItem("q");
    let sections = null, isLoading = false;

    function load() {
        if (isLoading) return;
        isLoading = true;
        const script = document.createElement("script");
        script.src = `${form.dataset.root}search_index.js`;
        script.addEventListener("load", () => {
            sections = window.siteIndex.map(([address, title, heading, text]) => ({
                address, title, heading, text,
                lowerHeading: heading.toLowerCase(), lowerTitle: title.toLowerCase(), lowerText: text.toLowerCase(),
            }));
            show();
        });
        script.addEventListener("error", () => { isLoading = false; });
        document.head.append(script);
    }

    function score(section, words) {
        let sum = 0;
        for (const word of words) {
            const inHeading = section.lowerHeading.includes(word), inTitle = section.lowerTitle.includes(word);
            const inText = section.lowerText.split(word).length - 1;
            if (!inHeading && !inTitle && !inText) return 0;
            sum += (inHeading ? 12 : 0) + (inTitle ? 4 : 0) + Math.min(inText, 6);
        }
        return sum;
    }

    // Some text around the first word that occurs, with all words marked.
    function snippet(section, words) {
        const places = words.map((word) => section.lowerText.indexOf(word)).filter((place) => place >= 0);
        const near = Math.min(...places, section.text.length) - BEFORE;
        const first = near > 0 ? section.text.indexOf(" ", near) + 1 : 0;
        const text = section.text.slice(places.length ? first : 0).slice(0, LENGTH), lower = text.toLowerCase();
        const parts = [];
        let at = 0;
        while (at < text.length) {
            let next = text.length, size = 0;
            for (const word of words) {
                const place = lower.indexOf(word, at);
                if (place >= 0 && place < next) [next, size] = [place, word.length];
            }
            parts.push(text.slice(at, next));
            if (size) {
                const mark = document.createElement("mark");
                mark.textContent = text.slice(next, next + size);
                parts.push(mark);
            }
            at = next + size;
        }
        return parts;
    }

    function link(address, text) {
        const element = document.createElement("a");
        element.href = `${form.dataset.root}${address}`;
        element.textContent = text;
        return element;
    }

    function show() {
        const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
        panel.hidden = !words.length || !sections;
        if (panel.hidden) return;
        const found = sections.map((section) => [score(section, words), section]).filter(([points]) => points);
        found.sort(([first], [second]) => second - first);
        const count = document.createElement("p"), list = document.createElement("ol");
        count.textContent = found.length === 1 ? "1 section" : `${found.length} sections`;
        count.setAttribute("role", "status");
        for (const [, section] of found.slice(0, MOST)) {
            const item = document.createElement("li"), text = document.createElement("p");
            const isWhole = !section.heading || section.heading === section.title;
            item.append(link(section.address, isWhole ? section.title : `${section.title}: ${section.heading}`), text);
            text.append(...snippet(section, words));
            list.append(item);
        }
        const api = link(`api/transformer.html?search=${encodeURIComponent(field.value.trim())}`,
            `Search the API for “${field.value.trim()}”`);
        panel.replaceChildren(count, list, api);
        panel.scrollTop = 0;
    }

    form.hidden = false;
    field.addEventListener("focus", load);
    field.addEventListener("input", () => { load(); show(); });
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        const first = panel.querySelector("a");
        if (first && !panel.hidden) first.click();
    });
    document.addEventListener("keydown", (event) => {
        const isTyping = event.target.matches?.("input, textarea, select");
        if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
            event.preventDefault();
            field.focus();
            field.select();
        } else if (event.key === "Escape" && !panel.hidden) {
            panel.hidden = true;
            field.focus();
        }
    });
    document.addEventListener("click", (event) => {
        if (!panel.contains(event.target) && !form.contains(event.target)) panel.hidden = true;
    });
    const query = new URLSearchParams(location.search).get("q");
    if (query) {
        field.value = query;
        load();
    }
})();
