<?php
declare(strict_types=1);
require __DIR__ . '/../src/Page.php';
session_start();
echo (new Site\Page(getenv('APP_ENV')))->render($_GET['name'] ?? 'nobody'), "\n";
