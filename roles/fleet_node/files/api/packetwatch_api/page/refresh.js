// Copyright: (c) 2026, Packetwatch authors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Gets the page again every 15 seconds, and exchanges its tables. Without this script, the page is complete but stands still.
"use strict";
(() => {
  const PERIOD = 15000;
  const PATIENCE = 10000;
  const content = document.getElementById("content");
  const button = document.getElementById("pause");
  const word = document.getElementById("refreshed");
  let isPaused = false;

  // A refresh would take away the focus or the selection of a reader.
  const isInUse = () =>
    (content !== document.activeElement && content.contains(document.activeElement)) ||
    !document.getSelection().isCollapsed;

  const refresh = async () => {
    if (isPaused || document.hidden || isInUse()) {
      return;
    }
    try {
      // With the origin, so that a password in the page's own address is left out: fetch refuses it.
      const answer = await fetch(location.origin + location.pathname + location.search, {
        cache: "no-store",
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE),
      });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("content");
      if (!fresh) {
        throw new Error(`the node answers ${answer.status}`);
      }
      content.replaceChildren(...fresh.childNodes);
      word.textContent = "Refreshed every 15 seconds";
      word.className = "";
    } catch (error) {
      word.textContent = `Not refreshed: ${error.message}. The tables are old.`;
      word.className = "bad";
    }
  };

  button.hidden = false;
  word.textContent = "Refreshed every 15 seconds";
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", String(isPaused));
    word.textContent = isPaused ? "Not refreshed" : "Refreshed every 15 seconds";
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, PERIOD);
})();
