/* Uses the C ABI from a project that is in C alone. */
#include <mixtral.h>
#include <stdio.h>

int main(void) { return puts(mixtral_version_text()) < 0; }
