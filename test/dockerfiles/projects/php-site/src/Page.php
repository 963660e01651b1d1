<?php
declare(strict_types=1);
namespace Site;

final class Page
{
    public function __construct(private readonly string $environment) {}

    public function render(string $name): string
    {
        return sprintf('<p>%s in %s, %s, %d</p>', htmlspecialchars($name), $this->environment, ini_get('date.timezone'), getmyuid());
    }
}
